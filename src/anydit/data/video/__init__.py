"""Videos: MP4, WebM, GIF and folders of pictures, by seconds and frames per second; real digits that move."""
