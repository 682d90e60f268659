"""rawsse.relay.metrics: what is counted, under which names, and that Prometheus' own parser reads it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rawsse.relay import metrics
from rawsse.relay.metrics import MAX_MODELS_COUNTED, MAX_TYPES_COUNTED, Metrics
from rawsse.relay.record import LEASE_LOST, NODE_LOST, RunRecord, RunStart

MODEL, DATED = "claude-sonnet-5", "claude-sonnet-5-20250929"
CHAT = 'gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="claude-sonnet-5"'
ANSWERED = f'{CHAT},gen_ai_response_model="claude-sonnet-5-20250929"'

RUN: dict[str, Any] = {
    "time": 1_764_500_000.0,
    "run": "run-1",
    "user": "ada",
    "dialect": "text",
    "model": DATED,
    "ending": "complete",
    "stop_reason": "end_turn",
    "error": None,
    "seconds": 3.5,
    "first_token_seconds": 0.75,
    "input_tokens": 10,
    "output_tokens": 217,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 4000,
    "exact": True,
    "on_disconnect": None,
    "request_id": "req_1",
    "words": "the answer is whole",
}
REFUSED: dict[str, Any] = {
    **RUN,
    **dict.fromkeys(("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), 0),
    "model": MODEL,
    "ending": "error",
    "stop_reason": None,
    "error": "rate_limit_error",
    "first_token_seconds": None,
}


def begin(observer: Metrics, asked: str = MODEL, **changes: Any) -> None:
    fields = {name: {**RUN, **changes}[name] for name in ("time", "run", "user", "dialect")}
    observer.begun(RunStart(**fields, model=asked))


def play(observer: Metrics, asked: str = MODEL, run: dict[str, Any] = RUN, **changes: Any) -> None:
    """A run, from its begin to its end."""
    begin(observer, asked, **changes)
    observer.ended(RunRecord(**{**run, **changes}))


def lines(observer: Metrics) -> list[str]:
    text = observer.render()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    return text.splitlines()


def sample(observer: Metrics, name: str) -> float:
    """The value of the only sample that begins so."""
    (line,) = [line for line in lines(observer) if line.startswith(name)]
    return float(line.rpartition(" ")[2])


# --- What is counted


def test_a_run_counts_by_its_ending_and_dialect() -> None:
    observer = Metrics()
    play(observer)
    play(observer)
    play(observer, ending="truncated", dialect="ui")
    assert [line for line in lines(observer) if line.startswith("rawsse_runs_total")] == [
        'rawsse_runs_total{ending="complete",dialect="text"} 2',
        'rawsse_runs_total{ending="truncated",dialect="ui"} 1',
    ]


def test_a_run_is_open_from_its_begin_to_its_end() -> None:
    observer = Metrics()
    begin(observer)
    begin(observer, user="grace")  # who chose the same id
    assert sample(observer, "rawsse_open_streams") == 2
    play(observer, user="grace")
    assert sample(observer, "rawsse_open_streams") == 1
    play(observer)
    assert sample(observer, "rawsse_open_streams") == 0


def test_an_end_without_a_begin_counts_too() -> None:
    observer = Metrics()
    observer.ended(RunRecord(**RUN))
    assert (sample(observer, "rawsse_runs_total"), sample(observer, "rawsse_open_streams")) == (1, 0)


def test_times_are_those_of_the_call_with_both_models() -> None:
    observer = Metrics()
    play(observer)
    duration, first = "gen_ai_client_operation_duration_seconds", "gen_ai_client_operation_time_to_first_chunk_seconds"
    for name, seconds in ((duration, 3.5), (first, 0.75)):
        assert sample(observer, f"{name}_sum{{{ANSWERED}}}") == seconds
        assert sample(observer, f"{name}_count{{{ANSWERED}}}") == 1


def test_input_tokens_include_those_of_the_cache_as_the_conventions_say() -> None:
    observer = Metrics()
    play(observer)
    assert sample(observer, f'gen_ai_client_token_usage_sum{{{ANSWERED},gen_ai_token_type="input"}}') == 4310
    assert sample(observer, f'gen_ai_client_token_usage_sum{{{ANSWERED},gen_ai_token_type="output"}}') == 217
    assert sample(observer, 'rawsse_cache_tokens_total{kind="creation"}') == 300
    assert sample(observer, 'rawsse_cache_tokens_total{kind="read"}') == 4000


def test_a_call_that_no_model_answered_has_an_error_and_neither_tokens_nor_a_model_that_responded() -> None:
    observer = Metrics()
    play(observer, run=REFUSED)
    play(observer)  # so that the name has its place
    play(observer, run=REFUSED)
    play(observer, run=REFUSED, error="api_error", exact=False, input_tokens=40, estimated_tokens=40)
    text = observer.render()
    failed = f'gen_ai_client_operation_duration_seconds_count{{{CHAT},error_type="rate_limit_error"}}'
    assert sample(observer, failed) == 1
    assert sample(observer, 'rawsse_upstream_errors_total{type="rate_limit_error"}') == 2
    assert text.count("token_usage_count") == 2
    assert text.count("first_chunk_seconds_count") == 1


def test_a_run_that_broke_off_has_its_tokens_and_its_error() -> None:
    observer = Metrics()
    play(observer, ending="timeout", error="timeout_error", exact=False)
    assert sample(observer, f'gen_ai_client_token_usage_count{{{ANSWERED},gen_ai_token_type="output"}}') == 1
    failed = f'gen_ai_client_operation_duration_seconds_count{{{ANSWERED},error_type="timeout_error"}}'
    assert sample(observer, failed) == 1


def test_resumes_and_refusals_count_by_what_became_of_them() -> None:
    observer = Metrics()
    for result in ("resumed", "gone", "resumed"):
        observer.count_resume(result)
    observer.count_refusal("rate_limit_error")
    assert sample(observer, 'rawsse_resumes_total{result="resumed"}') == 2
    assert sample(observer, 'rawsse_resumes_total{result="gone"}') == 1
    assert sample(observer, 'rawsse_refused_requests_total{reason="rate_limit_error"}') == 1


def test_what_others_count_is_read_for_each_rendering() -> None:
    readers = iter([3, 4, 5])
    observer = Metrics({"rawsse_readers": lambda: next(readers), "rawsse_ledger_rows_dropped_total": lambda: 7})
    assert [sample(observer, "rawsse_readers"), sample(observer, "rawsse_readers")] == [3, 4]
    assert sample(observer, "rawsse_ledger_rows_dropped_total") == 7


def test_what_nobody_counts_is_left_out() -> None:
    text = Metrics({"rawsse_ledger_rows_dropped_total": lambda: 2}).render()
    assert "# TYPE rawsse_ledger_rows_dropped_total counter\nrawsse_ledger_rows_dropped_total 2\n" in text
    assert "rawsse_readers" not in text


# --- Limits


def test_users_are_never_in_a_label() -> None:
    observer = Metrics()
    play(observer, user="ada@example.org")
    assert "ada" not in observer.render()


def test_models_that_answered_take_a_place_up_to_the_limit() -> None:
    observer = Metrics()
    for number in range(MAX_MODELS_COUNTED + 10):
        play(observer, f"model-{number}", model=f"model-{number}")
    names = {line for line in lines(observer) if line.startswith("gen_ai_client_operation_duration_seconds_count")}
    assert len(names) == MAX_MODELS_COUNTED + 1
    other = f'gen_ai_client_operation_duration_seconds_count{{{CHAT},gen_ai_response_model="other"}}'
    assert sample(observer, other.replace(MODEL, "other")) == 10


def test_models_of_the_operator_have_a_place_before_they_have_answered() -> None:
    own = [f"own-{number}" for number in range(MAX_MODELS_COUNTED + 1)]  # their number is the operator's own affair
    observer = Metrics(models=own)
    play(observer, "own-0", REFUSED, model="own-0")
    asked = 'gen_ai_operation_name="chat",gen_ai_provider_name="anthropic",gen_ai_request_model="own-0"'
    assert f"gen_ai_client_operation_duration_seconds_count{{{asked}," in observer.render()
    play(observer)
    assert sample(observer, f"gen_ai_client_operation_duration_seconds_count{{{ANSWERED}}}") == 1


def test_names_that_a_caller_makes_up_take_no_place() -> None:
    observer = Metrics()
    for number in range(MAX_MODELS_COUNTED * 2):
        tokens = {"input_tokens": 40, "estimated_tokens": 40} if number % 2 else {}
        play(observer, f"made-up-{number}", REFUSED, error="not_found_error", **tokens)
    play(observer)
    assert "made-up" not in observer.render()
    assert sample(observer, f"gen_ai_client_operation_duration_seconds_count{{{ANSWERED}}}") == 1


def test_types_that_an_upstream_makes_up_are_bounded() -> None:
    observer = Metrics()
    for number in range(MAX_TYPES_COUNTED + 10):
        play(observer, run=REFUSED, error=f"error-{number}")
    for number in range(10):
        observer.count_refusal(f"reason-{number}")
        observer.count_resume(f"result-{number}")
    errors = [line for line in lines(observer) if line.startswith("rawsse_upstream_errors_total")]
    assert (len(errors), errors[-1]) == (MAX_TYPES_COUNTED + 1, 'rawsse_upstream_errors_total{type="other"} 10')
    assert sample(observer, "rawsse_refused_requests_total") == sample(observer, "rawsse_resumes_total") == 10


def test_a_long_name_is_cut() -> None:
    observer = Metrics()
    play(observer, "m" * 100_000, model="n" * 100_000)
    assert len(observer.render()) < 100_000


# --- The format


def test_a_histogram_has_cumulative_buckets_whose_bounds_are_in_them() -> None:
    observer = Metrics()
    for seconds in (0.01, 0.011, 1.28, 100.0):
        play(observer, seconds=seconds)
    name = "gen_ai_client_operation_duration_seconds"
    found = {
        line.split('le="')[1].split('"')[0]: int(line.rpartition(" ")[2])
        for line in lines(observer)
        if line.startswith(f"{name}_bucket")
    }
    # https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/: "ExplicitBucketBoundaries"
    assert list(found) == [
        *("0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64"),
        *("1.28", "2.56", "5.12", "10.24", "20.48", "40.96", "81.92", "+Inf"),
    ]
    assert list(found.values()) == [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4]
    assert sample(observer, f"{name}_count") == 4
    assert math.isclose(sample(observer, f"{name}_sum"), 101.301)


def test_the_buckets_of_tokens_are_powers_of_four() -> None:
    assert list(metrics.TOKENS) == [4**power for power in range(14)]


def test_each_metric_has_its_help_and_its_type_once_before_its_samples() -> None:
    observer = Metrics()
    play(observer)
    play(observer, ending="error", error="api_error")
    seen: list[str] = []
    for line in lines(observer):
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] == seen[-1]
        else:
            assert line.startswith(seen[-1])
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("reason", "label"), [('a"b', r"a\"b"), (r"a\b", r"a\\b"), (r"a\"b", r"a\\\"b"), ("é☺", "é☺"), ("a\ud800b", "a b")]
)
def test_the_values_of_labels_are_escaped(reason: str, label: str) -> None:
    observer = Metrics()
    observer.count_refusal(reason)
    assert f'rawsse_refused_requests_total{{reason="{label}"}} 1\n' in observer.render()
    assert observer.render().encode()


# --- Prometheus


@pytest.mark.real
def test_the_parser_of_prometheus_reads_all_of_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="Prometheus' parser: the extra `interop`")
    odd = 'a "quoted" \\ name\nin two lines ☺ {x="y"} # 1'
    read = ("rawsse_readers", "rawsse_ready", "rawsse_ledger_rows_dropped_total")
    observer = Metrics(dict.fromkeys(read, lambda: 5))
    play(observer, odd, model=odd)
    observer.ended(RunRecord(**{**RUN, "error": LEASE_LOST}))
    play(observer, run=REFUSED, error=odd)
    observer.count_resume(odd)
    observer.count_refusal(odd)
    families = {family.name: family for family in parser.text_string_to_metric_families(observer.render())}
    assert {(name.removesuffix("_total"), family.kind) for name, family in metrics.FAMILIES.items()} == {
        (family.name, family.type) for family in families.values()
    }
    assert families["rawsse_refused_requests"].samples[0].labels == {"reason": odd.replace("\n", " ")}
    usage = families["gen_ai_client_token_usage"].samples
    assert {item.labels["gen_ai_request_model"] for item in usage} == {odd.replace("\n", " ")}
    assert [item.value for item in usage if item.labels.get("le") == "+Inf"] == [1, 1]
    assert [item.value for item in usage if item.name.endswith("_sum")] == [4310, 217]


@pytest.mark.real
def test_it_is_what_the_library_of_prometheus_writes() -> None:
    client = pytest.importorskip("prometheus_client", reason="Prometheus' library: the extra `interop`")
    parser = pytest.importorskip("prometheus_client.parser", reason="Prometheus' parser: the extra `interop`")
    registry = client.CollectorRegistry()
    name = "gen_ai_client_operation_duration_seconds"
    theirs = client.Histogram(name, "h", ["error_type"], buckets=metrics.SECONDS, registry=registry)
    ours = Metrics()
    for seconds in (0.0, 0.02, 0.5, 400.0):
        theirs.labels("api_error").observe(seconds)
        play(ours, run=REFUSED, error="api_error", seconds=seconds)

    def samples(text: str) -> set[tuple[str, str, float]]:
        families = parser.text_string_to_metric_families(text)
        found = [item for family in families for item in family.samples if item.name.startswith(name)]
        return {(item.name, item.labels.get("le", ""), item.value) for item in found if "created" not in item.name}

    assert samples(ours.render()) == samples(client.generate_latest(registry).decode())
    assert client.CONTENT_TYPE_PLAIN_0_0_4 == metrics.CONTENT_TYPE


def test_a_run_that_another_node_counts_is_only_an_error_and_no_longer_open() -> None:
    observer = Metrics()
    play(observer, ending="truncated", error=LEASE_LOST)
    assert sample(observer, 'rawsse_relay_errors_total{type="lease_lost"}') == 1
    assert sample(observer, "rawsse_open_streams") == 0
    found = [line for line in lines(observer) if not line.startswith("#") and "rawsse_relay_errors" not in line]
    assert [line for line in found if float(line.split()[-1])] == []


def test_a_run_whose_node_was_lost_is_no_error_of_the_api() -> None:
    observer = Metrics()
    play(observer, ending="truncated", error=NODE_LOST)
    assert sample(observer, 'rawsse_relay_errors_total{type="node_lost"}') == 1
    assert "rawsse_upstream_errors_total" not in observer.render()
    assert sample(observer, 'rawsse_runs_total{ending="truncated"') == 1
