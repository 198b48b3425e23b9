"""Graphs of LLB: one source, or refused."""

import hashlib

import pytest

from ketch.api.buildkit import llb, schema
from ketch.errors import InvalidArgumentError, UnsupportedError

words = schema.messages("control")


def test_a_graph_of_one_source_is_made_and_read() -> None:
    graph = llb.definition("ketch-result://x")
    assert llb.source_of(graph, "it") == llb.Source("ketch-result", "x", {})
    first, last = getattr(graph, "def")
    digest = f"sha256:{hashlib.sha256(first).hexdigest()}"
    assert schema.decode(words.Op, last).inputs[0].digest == digest
    assert digest in graph.metadata


def test_other_graphs_are_refused_by_name() -> None:
    source = schema.encode(words.Op(source=words.SourceOp(identifier="local://context")))
    run = schema.encode(words.Op(exec=words.OtherOp()))
    for operations, text in (
        ([source, run], "an LLB graph with an operation exec"),
        ([source, source], "of 2 sources"),
        ([], "of 0 sources"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            llb.source_of(words.Definition(**{"def": operations}), "it")
    with pytest.raises(InvalidArgumentError):
        llb.source_of(words.Definition(**{"def": [b"\xff"]}), "it")
