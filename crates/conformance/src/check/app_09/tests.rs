use super::super::app_08::tests::{Batch, id};
use super::*;
use crate::webhook::Answer;
use rstest::rstest;

fn unavailable() -> Answer {
    Answer::of(http::StatusCode::SERVICE_UNAVAILABLE)
}

#[rstest]
#[case::whole(|batch| batch, "passed", "2 of 2")]
#[case::a_row_that_two_see_is_one_effect(|batch: Batch| batch.also_seen_by("b", "a-0"), "passed", "2 of 2")]
#[case::taken_by_another(|batch: Batch| batch.lost("a-0").enhanced_by("b", "b", "a-0"), "failed", "by others' workers")]
#[case::taken_by_another_and_stored_for_its_tenant(|batch: Batch| batch.lost("a-0").enhanced_by("b", "a", "a-0"), "failed", "by others' workers")]
#[case::taken_from_another(|batch: Batch| batch.lost("b-0").enhanced_by("a", "a", "b-0"), "failed", "handling of webhooks to b by workers of a")]
#[case::twice(|batch: Batch| batch.enhanced_by("a", "a", "a-0"), "failed", "second enhancement")]
#[case::lost(|batch: Batch| batch.lost("a-0"), "failed", "not within 10 s: 1 of them, first a-0")]
#[case::lost_by_a_worker_that_is_not_ready(|batch: Batch| batch.lost("a-0").asleep("a"), "inconclusive", "no pod with the labels")]
#[case::taken_though_a_log_is_missing(|batch: Batch| batch.unread("ai-agents-a").lost("a-0").enhanced_by("b", "b", "a-0"), "failed", "by others' workers")]
#[case::a_log_is_missing(|batch: Batch| batch.unread("ai-agents-b"), "inconclusive", "read the log of a pod in ai-agents-b")]
#[case::a_log_elsewhere_is_missing(|batch: Batch| batch.unread("default"), "passed", "2 of 2")]
#[case::none_is_accepted(|batch: Batch| batch.answered("a-0", &unavailable()).answered("a-1", &unavailable()), "inconclusive", "answered 503")]
#[case::it_cannot_look(|batch: Batch| batch.blind("a"), "inconclusive", "no session with PostgreSQL")]
#[case::the_other_does_nothing(|batch: Batch| batch.lost("b-0").lost("b-1"), "inconclusive", "0 of 2")]
fn workers_do_their_own_tenants_work(
    #[case] change: fn(Batch) -> Batch,
    #[case] word: &str,
    #[case] text: &str,
) {
    let verdict = judge(&id("a"), &change(Batch::whole()).done());
    assert_eq!(verdict.word(), word, "{verdict:?}");
    assert!(format!("{verdict:?}").contains(text), "{verdict:?}");
}

#[test]
fn what_is_stored_and_told_by_no_worker_is_open() {
    let mut batch = Batch::whole().unlogged("a-0").done();
    if let Some(Ok(seen)) = batch.seen.get_mut(&id("a")) {
        seen.insert("a-0".into(), vec![None]);
    }
    let verdict = judge(&id("a"), &batch);
    assert_eq!(verdict.word(), "inconclusive", "{verdict:?}");
    assert!(format!("{verdict:?}").contains("by which worker is told nowhere"));
}
