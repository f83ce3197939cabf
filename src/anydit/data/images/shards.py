"""Images in tar files, as WebDataset lays them out: all members of one name are one sample."""

from pathlib import Path

from anydit.config import config
from anydit.data.base import Part, Samples
from anydit.data.images.cache import Sources
from anydit.data.images.decode import SUFFIXES
from anydit.data.images.folder import ImageData
from anydit.data.outside import rows_of
from anydit.data.shards import CLASS, TEXT, Packed


@config
class ImageShards(ImageData):
    """The images in tar files that are not compressed: `path` is one, or a folder of them, as WebDataset writes them.

    Members `NAME.jpg` (or another format), `NAME.cls` and `NAME.txt` are one sample, its class and its caption, which
    the model is told as `label` and `text`; of captions and classes all samples have one, or none. A tar file that is
    damaged counts as one unreadable image from there on.
    """

    path: Path = Path("shards")

    def open(self, part: Part) -> Samples:
        found = Packed.of(self.path.expanduser(), SUFFIXES, "images")
        values = {CLASS: found.told} if found.has(CLASS) else {}
        values |= {TEXT: found.texts(TEXT)} if found.has(TEXT) else {}
        names, classes = list(found.shards), found.classes
        index = {name: i for i, name in enumerate(classes)}

        def load(i: int) -> bytes:
            for suffix, of_each in values.items():
                if names[i] not in of_each:
                    found.shards[names[i]].text(suffix)  # which raises what is wrong
            with found.source(names[i]).open() as file:
                return file.read()

        labels = [index[values[CLASS].get(name, classes[0])] for name in names] if classes else None
        decoded = self._decoded(Sources(names, labels, load, found.states))
        texts = {"text": [values[TEXT][name] for name in decoded.names]} if TEXT in values else {}
        return self._samples(decoded, classes, part, rows_of(decoded.names, self.held_out, part), texts)
