"""Images' configurations: history and times as BuildKit writes them."""

from typing import TYPE_CHECKING, cast

from ketch.build import assembling
from ketch.build.graph import Scratch, Step, Target
from ketch.build.states import Layer

if TYPE_CHECKING:
    from ketch.spec.image import History, ImageConfig

SECOND_NS = 1_000_000_000
CONFIG = cast(
    "ImageConfig",
    {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers"}},
)


def layer(number: int, created_ns: int) -> Layer:
    digest = f"sha256:{number:064x}"
    return Layer(digest, digest, 1, created_ns, f"step {number}")


def target(*steps: Step) -> Target:
    return Target("linux/amd64", Scratch(name=""), CONFIG, None, steps)


RUN = Step("RUN x # buildkit", Scratch(name="x"))
ENV = Step("ENV a=b")


def test_new_steps_have_the_times_of_their_layers_and_empty_ones_that_of_the_first() -> None:
    base = cast("ImageConfig", {
        **CONFIG,
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "old", "comment": "kept"}],
    })  # fmt: skip
    layers = [layer(1, 0), layer(2, 5 * SECOND_NS + 500), layer(3, 7 * SECOND_NS)]
    found = assembling.document(target(ENV, RUN, ENV, RUN, ENV), layers, base)
    assert found["history"] == [
        {"created": "2020-01-01T00:00:00Z", "created_by": "old", "comment": "kept"},
        {"created": "1970-01-01T00:00:05.0000005Z", "created_by": "ENV a=b",
         "comment": "buildkit.dockerfile.v0", "empty_layer": True},
        {"created": "1970-01-01T00:00:05.0000005Z", "created_by": "RUN x # buildkit",
         "comment": "buildkit.dockerfile.v0"},
        {"created": "1970-01-01T00:00:05.0000005Z", "created_by": "ENV a=b",
         "comment": "buildkit.dockerfile.v0", "empty_layer": True},
        {"created": "1970-01-01T00:00:07Z", "created_by": "RUN x # buildkit",
         "comment": "buildkit.dockerfile.v0"},
        {"created": "1970-01-01T00:00:07Z", "created_by": "ENV a=b",
         "comment": "buildkit.dockerfile.v0", "empty_layer": True},
    ]  # fmt: skip
    assert found["created"] == "1970-01-01T00:00:07Z"
    assert found["rootfs"]["diff_ids"] == [one.diff_id for one in layers]
    # Go writes these sorted, and History's fields in this order.
    assert list(found) == ["architecture", "config", "created", "history", "os", "rootfs"]
    assert list(found["history"][1]) == ["created", "created_by", "comment", "empty_layer"]


def test_without_new_layers_times_are_those_of_the_base() -> None:
    base = cast("ImageConfig", {
        **CONFIG, "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "old"}],
    })  # fmt: skip
    found = assembling.document(target(ENV), [layer(1, 0)], base)
    assert [entry["created"] for entry in found["history"]] == ["2020-01-01T00:00:00Z"] * 2
    assert found["created"] == "2020-01-01T00:00:00Z"


def test_an_epoch_is_the_time_of_all_that_is_new_and_the_latest_of_what_is_not() -> None:
    base = cast("ImageConfig", {
        **CONFIG,
        "history": [
            {"created": "1960-01-01T00:00:00Z", "created_by": "old"},
            {"created": "2020-01-01T00:00:00Z", "created_by": "younger", "empty_layer": True},
        ],
    })  # fmt: skip
    found = assembling.document(
        target(ENV, RUN), [layer(1, 0), layer(2, 9 * SECOND_NS)], base, epoch_s=86400
    )
    assert [entry["created"] for entry in found["history"]] == [
        "1960-01-01T00:00:00Z", *["1970-01-02T00:00:00Z"] * 3,
    ]  # fmt: skip
    assert found["created"] == "1970-01-02T00:00:00Z"


def test_scratch_alone_has_no_time() -> None:
    found = assembling.document(target(ENV), [], None)
    assert "created" not in found
    assert found["history"] == [
        {"created_by": "ENV a=b", "comment": "buildkit.dockerfile.v0", "empty_layer": True}
    ]


def test_a_history_always_tells_of_as_many_layers_as_there_are() -> None:
    told: list[History] = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}]
    found = assembling.counted(told, [layer(1, 1), layer(2, SECOND_NS)])
    assert found[2] == {
        "created": "1970-01-01T00:00:01Z", "created_by": "step 2",
        "comment": "buildkit.exporter.image.v0",
    }  # fmt: skip
    assert assembling.counted([{"created_by": "a"}, {"created_by": "b"}], [layer(1, 1)]) == [
        {"created_by": "a"}, {"created_by": "b", "empty_layer": True},
    ]  # fmt: skip


def test_squashed_steps_keep_their_lines_and_lose_their_layers() -> None:
    base = cast("ImageConfig", {**CONFIG, "history": [{"created_by": "old"}]})
    layers = [layer(1, 1), layer(2, 5 * SECOND_NS), layer(3, 7 * SECOND_NS)]
    whole = assembling.document(target(RUN, ENV, RUN), layers, base)
    found = assembling.squashed(whole, [layers[0], layer(9, 7 * SECOND_NS)], 1)
    assert [entry.get("empty_layer", False) for entry in found["history"]] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert len(found["rootfs"]["diff_ids"]) == 2
