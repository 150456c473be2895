"""Every call of the API, against six real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kv_app.state import bucket_of

if TYPE_CHECKING:
    import httpx

    from tests.cluster.nodes import Cluster, Node


def test_put_when_quorum_acknowledges_answers_with_position(cluster: Cluster) -> None:
    """A committed write tells its key, value, position and how many followers have it."""
    first, second = cluster.put("api-put", "one"), cluster.put("api-put", "two")
    assert first.status_code == second.status_code == 200
    body = second.json()
    assert body["seq"] == first.json()["seq"] + 1
    assert 3 <= body.pop("follower_acks") <= 5
    assert body == {
        "key": "api-put",
        "value": "two",
        "epoch": 1,
        "seq": body["seq"],
        "quorum_met": True,
    }


@pytest.mark.parametrize("key", ["a/b/c", "with space", "%2F", "é", "🔑", "a%2Fb", "?x=1#y"])
def test_get_of_any_utf8_key_returns_what_was_put(cluster: Cluster, key: str) -> None:
    """A key is any UTF-8, however it looks in a path."""
    from urllib.parse import quote  # noqa: PLC0415

    path = quote(key, safe="")
    written = cluster.put(path, f"value of {key}")
    assert written.json()["key"] == key
    read = cluster.get(path)
    assert read.status_code == 200
    assert read.json() == {
        "key": key,
        "value": f"value of {key}",
        "epoch": written.json()["epoch"],
        "seq": written.json()["seq"],
    }


def test_put_of_empty_value_is_read_as_empty(cluster: Cluster) -> None:
    """An empty value is a value."""
    assert cluster.put("api-empty", "").status_code == 200
    assert cluster.get("api-empty").json()["value"] == ""


def test_delete_leaves_a_versioned_tombstone_everywhere(cluster: Cluster) -> None:
    """After a delete every replica answers 404 with the deletion's position."""
    cluster.put("api-delete", "x")
    deleted = cluster.client.delete(f"{cluster.leader.url}/kv/api-delete")
    assert deleted.status_code == 200
    assert deleted.json()["value"] is None
    cluster.wait_converged()
    for node in cluster.nodes.values():
        answer = cluster.get("api-delete", node)
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["code"], error["seq"]) == ("not_found", deleted.json()["seq"])


def test_delete_of_absent_key_is_committed(cluster: Cluster) -> None:
    """A delete of a key that never was is a write like any other."""
    answer = cluster.client.delete(f"{cluster.leader.url}/kv/api-never-there")
    assert answer.status_code == 200
    assert answer.json()["follower_acks"] >= 3


def batch(cluster: Cluster, *operations: dict[str, str]) -> httpx.Response:
    """Writes a batch through the leader."""
    body = {"operations": list(operations)}
    return cluster.client.post(f"{cluster.leader.url}/kv", json=body)


def test_batch_is_one_entry_on_every_replica(cluster: Cluster) -> None:
    """All of it is at one position everywhere, the later operation on a key having won."""
    cluster.put("api-batch-gone", "x")
    before = cluster.links()["last_seq"]
    answer = batch(
        cluster,
        {"op": "put", "key": "api-batch/é", "value": "first"},
        {"op": "delete", "key": "api-batch-gone"},
        {"op": "put", "key": "api-batch/é", "value": "second"},
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["value"] for result in results] == ["first", None, "second"]
    assert {(result["epoch"], result["seq"]) for result in results} == {(1, before + 1)}
    assert all(3 <= result["follower_acks"] <= 5 for result in results)
    cluster.wait_converged()
    for node in cluster.nodes.values():
        assert cluster.versions(node, ["api-batch%2F%C3%A9", "api-batch-gone"]) == {
            "api-batch%2F%C3%A9": ("second", 1, before + 1),
            "api-batch-gone": (None, 1, before + 1),
        }


def test_read_after_a_write_shows_it_on_every_replica(cluster: Cluster) -> None:
    """Also on those whose acknowledgment the write did not wait for, however late it comes."""
    cluster.admin("quorum", write_quorum=0)
    cluster.admin("delays", min_delay_ms=300, max_delay_ms=400)
    written = cluster.put("api-after", "late").json()
    after = {"after": f"{written['epoch']}.{written['seq']}"}
    read = {"key": "api-after", "value": "late", "epoch": 1, "seq": written["seq"]}
    assert cluster.get("api-after", cluster.followers[0]).status_code == 404
    for node in cluster.nodes.values():
        answer = cluster.client.get(f"{node.url}/kv/api-after", params=after)
        assert (answer.status_code, answer.json()) == (200, read)


def test_link_that_is_cut_leaves_its_follower_behind_until_it_is_mended(cluster: Cluster) -> None:
    """Nothing reaches it, and then all that it missed."""
    node = cluster.followers[4]
    cluster.put("api-cut", "before")
    cluster.wait_converged()
    assert cluster.admin(f"links/{node.name}", state="down").json()["connected"] is False
    try:
        for number in range(20):
            assert cluster.put("api-cut", f"{number}").status_code == 200
        assert cluster.links()["links"][node.name]["connected"] is False
        assert cluster.get("api-cut", node).json()["value"] == "before"
    finally:
        cluster.admin(f"links/{node.name}", state="up").raise_for_status()
    cluster.wait_converged()
    assert cluster.get("api-cut", node).json()["value"] == "19"
    cluster.wait_connected()


def test_metrics_tell_the_writes_and_the_lag_of_each_follower(cluster: Cluster) -> None:
    """As Prometheus reads them, from a leader and from a follower."""

    def scrape(node: Node) -> dict[tuple[str, ...], float]:
        answer = cluster.client.get(f"{node.url}/metrics")
        families = text_string_to_metric_families(answer.text)
        samples = (sample for family in families for sample in family.samples)
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    acknowledged = ("quorumeter_writes_total", "acknowledged")
    before = scrape(cluster.leader)
    for _ in range(10):
        cluster.put("api-metrics", "x")
    cluster.wait_converged()
    after, follower = scrape(cluster.leader), scrape(cluster.followers[0])
    assert after[acknowledged] - before[acknowledged] == 10
    waits = ("quorumeter_quorum_wait_ms_count",)
    assert after[waits] - before[waits] == 10
    for node in cluster.followers:
        assert after["quorumeter_replication_lag_entries", node.url] == 0
        assert after["quorumeter_follower_counts", node.url] == 1
    for name in ("quorumeter_last_seq", "quorumeter_contiguous_seq", "quorumeter_keys"):
        assert after[name,] == follower[name,] > 0
    assert after["quorumeter_connections",] >= 1


def test_write_to_follower_is_refused_with_the_leaders_url(cluster: Cluster) -> None:
    """A follower sends the client to the leader, definitely."""
    follower = cluster.followers[0]
    answer = cluster.client.put(f"{follower.url}/kv/api-follower", json={"value": "x"})
    error = answer.json()["error"]
    assert answer.status_code == 403
    assert error["code"] == "not_leader"
    assert error["definite"] is True
    assert error["leader_url"] == cluster.leader.url
    assert cluster.get("api-follower").status_code == 404


def test_dump_holds_what_the_replica_shows(cluster: Cluster) -> None:
    """A dump is {key: value} of one replica, without deleted keys."""
    cluster.put("api-dump", "x")
    cluster.put("api-dump-deleted", "x")
    cluster.client.delete(f"{cluster.leader.url}/kv/api-dump-deleted")
    cluster.wait_converged()
    dumps = [cluster.client.get(f"{node.url}/dump").json() for node in cluster.nodes.values()]
    assert dumps[0]["api-dump"] == "x"
    assert "api-dump-deleted" not in dumps[0]
    assert all(dump == dumps[0] for dump in dumps)


def digest(cluster: Cluster, node: Node, **query: int) -> dict[str, Any]:
    """What a node answers, without what is its own."""
    body = cluster.client.get(f"{node.url}/digest", params=query).json()
    return {name: value for name, value in body.items() if name not in {"node_id", "role"}}


def test_digests_differ_in_the_buckets_that_lag_and_are_equal_once_writes_stop(
    cluster: Cluster,
) -> None:
    """Puts and deletes alike: in the end all replicas tell the same, at the same position."""
    cluster.put_many([(f"digest-{number % 40}", str(number)) for number in range(120)])
    for number in range(10):
        cluster.client.delete(f"{cluster.leader.url}/kv/digest-{number}")
    cluster.wait_converged()
    cluster.admin("quorum", write_quorum=0)
    cluster.admin("delays", min_delay_ms=1000, max_delay_ms=1000)
    written = cluster.put("digest-late", "late").json()
    late, follower = bucket_of("digest-late"), cluster.followers[0]
    leads, lags = (digest(cluster, node, bucket=late) for node in (cluster.leader, follower))
    pairs = enumerate(zip(leads["buckets"], lags["buckets"], strict=True))
    assert [bucket for bucket, (one, other) in pairs if one != other] == [late]
    assert (leads["max_seq"], lags["max_seq"]) == (written["seq"], written["seq"] - 1)
    assert leads["versions"] == lags["versions"] | {
        "digest-late": [written["epoch"], written["seq"]]
    }
    assert "digest-late" not in lags["versions"]
    cluster.wait_converged()
    expected = digest(cluster, cluster.leader)
    assert expected["contiguous"] == expected["max_seq"] == written["seq"]
    assert expected["keys"] == len(cluster.client.get(f"{cluster.leader.url}/dump").json())
    assert all(digest(cluster, node) == expected for node in cluster.followers)


def test_leader_tells_the_digests_of_its_followers(cluster: Cluster) -> None:
    """For who cannot reach them: word for word what they say themselves."""
    cluster.put("digest-relayed", "x")
    cluster.wait_converged()
    bucket = bucket_of("digest-relayed")
    shown = cluster.client.get(f"{cluster.leader.url}/admin/digests?bucket={bucket}").json()
    assert shown == {
        node.url: cluster.client.get(f"{node.url}/digest?bucket={bucket}").json()
        for node in cluster.followers
    }
    assert "digest-relayed" in shown[cluster.followers[0].url]["versions"]


def test_health_and_ready_tell_role_and_name(cluster: Cluster) -> None:
    """Every node says who it is, and that it can work."""
    for node in cluster.nodes.values():
        role = "leader" if node is cluster.leader else "follower"
        health = cluster.client.get(f"{node.url}/health").json()
        assert health == {
            "status": "ok",
            "role": role,
            "node_id": node.name,
            "epoch": 1,
            "start_id": node.start_id,
            "durable": False,
        }
        assert cluster.client.get(f"{node.url}/ready").status_code == 200


@pytest.mark.parametrize("k", [0, 1, 5])
def test_quorum_in_range_acts_on_the_next_write(cluster: Cluster, k: int) -> None:
    """A new k holds for the writes that begin after it."""
    answer = cluster.admin("quorum", write_quorum=k)
    assert answer.status_code == 200
    assert answer.json()["write_quorum"] == k
    assert cluster.put("api-quorum", "x").json()["follower_acks"] >= k


@pytest.mark.parametrize("k", [-1, 6, 2.5, "three", None])
def test_quorum_out_of_range_is_refused_and_changes_nothing(cluster: Cluster, k: object) -> None:
    """A k outside 0..n is a clear 400."""
    answer = cluster.admin("quorum", write_quorum=k)
    assert answer.status_code == 400
    assert "write_quorum" in answer.json()["error"]["message"]
    assert cluster.client.get(f"{cluster.leader.url}/admin/quorum").json()["write_quorum"] == 3


def test_delays_are_returned_and_slow_the_next_write(cluster: Cluster) -> None:
    """New delays hold for the entries that are appended after them."""
    answer = cluster.admin("delays", min_delay_ms=150, max_delay_ms=160)
    assert answer.status_code == 200
    assert answer.json() == {
        "min_delay_ms": 150,
        "max_delay_ms": 160,
        "delay_model": "independent",
    }
    assert cluster.put("api-delays", "x").elapsed.total_seconds() >= 0.15


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (10, 5), (0, 1e12), ("x", 5), (0, None)])
def test_delays_out_of_range_are_refused_and_change_nothing(
    cluster: Cluster, low: object, high: object
) -> None:
    """Delays that are no range are a clear 400."""
    answer = cluster.admin("delays", min_delay_ms=low, max_delay_ms=high)
    assert answer.status_code == 400
    assert "delay_ms" in answer.json()["error"]["message"]
    assert cluster.client.get(f"{cluster.leader.url}/admin/delays").json()["max_delay_ms"] == 0


def test_body_that_is_called_a_form_is_refused_with_the_header_to_send(cluster: Cluster) -> None:
    """What any web page could send is no administration; the error says what curl is to send."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"{cluster.leader.url}/admin/quorum"
    answer = cluster.client.post(url, content='{"write_quorum": 1}', headers=form)
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]
    assert cluster.client.get(url).json()["write_quorum"] == 3


def test_admin_calls_on_a_follower_are_refused(cluster: Cluster) -> None:
    """Only the leader is administrated."""
    url = cluster.followers[2].url
    for answer in (
        cluster.client.post(f"{url}/admin/quorum", json={"write_quorum": 1}),
        cluster.client.post(f"{url}/admin/delays", json={"min_delay_ms": 0, "max_delay_ms": 1}),
        cluster.client.get(f"{url}/admin/replica-status"),
        cluster.client.get(f"{url}/admin/links"),
    ):
        assert answer.status_code == 403
        assert answer.json()["error"]["leader_url"] == cluster.leader.url


def test_replica_status_shows_data_and_positions_of_all(cluster: Cluster) -> None:
    """One call tells what every replica holds and how far it is."""
    cluster.put("api-status", "x")
    cluster.wait_converged()
    status = cluster.client.get(f"{cluster.leader.url}/admin/replica-status").json()
    urls = {node.url: node.name for node in cluster.followers}
    assert status["leader"]["api-status"] == "x"
    assert set(status["followers"]) == set(status["positions"]) == set(urls)
    assert all(dump == status["leader"] for dump in status["followers"].values())
    for url, position in status["positions"].items():
        assert position["node_id"] == urls[url]
        assert position["connected"] is True
        assert position["learner"] is False
        assert position["holes"] == 0
        assert position["contiguous"] == position["max_seq"] == status["last_seq"]


def test_unknown_paths_and_methods_have_the_error_shape(cluster: Cluster) -> None:
    """Even the framework's own refusals come in the one shape."""
    url = cluster.leader.url
    for answer, status, code in (
        (cluster.client.get(f"{url}/nothing"), 404, "unknown_path"),
        (cluster.client.post(f"{url}/kv/x", json={}), 405, "method_not_allowed"),
        (cluster.client.post(f"{url}/health"), 405, "method_not_allowed"),
        (cluster.client.put(f"{url}/kv/", json={"value": "x"}), 400, "malformed"),
        (cluster.client.put(f"{url}/kv/x", content=b"{"), 400, "malformed"),
        (cluster.client.put(f"{url}/kv/x", json={"value": 5}), 400, "malformed"),
        (cluster.put("k" * 1025, "x"), 413, "too_large"),
        (cluster.put("large", "x" * (1024 * 1024 + 1)), 413, "too_large"),
        (cluster.put("larger", "x" * (5 * 1024 * 1024)), 413, "too_large"),
    ):
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["code"] == code
        assert error["definite"] is True
        assert error["message"].endswith(".")
        assert ("allow" in answer.headers) == (status == 405)


def test_openapi_describes_every_call(cluster: Cluster) -> None:
    """The document lists the hot path too, with its errors."""
    document = cluster.client.get(f"{cluster.leader.url}/openapi.json").json()
    put = document["paths"]["/kv/{key}"]["put"]
    assert {"200", "400", "403", "413", "422", "429", "503", "504"} <= set(put["responses"])
    assert {
        "/kv/{key}",
        "/kv",
        "/metrics",
        "/admin/links/{node_id}",
        "/dump",
        "/digest",
        "/health",
        "/ready",
        "/admin/quorum",
        "/admin/delays",
        "/admin/links",
        "/admin/replica-status",
        "/admin/digests",
    } <= set(document["paths"])
