"""Pictures: reading and writing them, sources of HR photos, views of these, and patches cut from them."""

from sr_env.photos.crops import (
    augment,
    crops,
    random_crops,
)
from sr_env.photos.decode import (
    MAX_PIXELS,
    Pixels,
    decode_samples,
    on_white,
    open_image,
    read_image,
    read_shape,
    to_8_bit,
)
from sr_env.photos.picture_file import (
    FORMATS,
    Picture,
    check_size,
    encoding_memory,
    read_picture,
    suited,
    write_picture,
)
from sr_env.photos.sources import (
    DEFAULT_MEMORY_BUDGET,
    EXTENSIONS,
    TEST_PHOTOS,
    TRAIN_PHOTOS,
    ArrayPhotos,
    BundledPhotos,
    PhotoFolder,
    PhotoSource,
    hold_out,
    list_files,
    open_photos,
)
from sr_env.photos.views import (
    Part,
    Softened,
    Subset,
)

__all__ = [
    "DEFAULT_MEMORY_BUDGET",
    "EXTENSIONS",
    "FORMATS",
    "MAX_PIXELS",
    "TEST_PHOTOS",
    "TRAIN_PHOTOS",
    "ArrayPhotos",
    "BundledPhotos",
    "Part",
    "PhotoFolder",
    "PhotoSource",
    "Picture",
    "Pixels",
    "Softened",
    "Subset",
    "augment",
    "check_size",
    "crops",
    "decode_samples",
    "encoding_memory",
    "hold_out",
    "list_files",
    "on_white",
    "open_image",
    "open_photos",
    "random_crops",
    "read_image",
    "read_picture",
    "read_shape",
    "suited",
    "to_8_bit",
    "write_picture",
]
