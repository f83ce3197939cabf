"""What checks the annotations of anydit while tests run: beartype, for which an int will do as a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
