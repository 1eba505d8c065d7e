"""From a weights file to a folder, its model card, and the Hub; and from the authors' servers to such a folder."""
