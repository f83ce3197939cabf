"""For the reference: a class made by `@config` is a dataclass, so that its page shows the fields as a signature."""

from typing import Any

from griffe import Class, Decorator, Expr, ExprName, Extension


class Configs(Extension):
    """Tells griffe, which reads the source without running it, what `anydit.config.config` does."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Give each such class the decorator that griffe knows."""
        for decorator in list(cls.decorators):
            if isinstance(decorator.value, Expr) and decorator.value.canonical_path == "anydit.config.config":
                known = ExprName("dataclasses.dataclass")
                cls.decorators.append(Decorator(known, lineno=decorator.lineno, endlineno=decorator.endlineno))
