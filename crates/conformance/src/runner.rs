//! Runs a plan's checks: all at the same time but those that ask to be alone, each with a deadline and a guard against panics, so that
//! every item ends in exactly one result.

use crate::check::Schedule;
use crate::context::Context;
use crate::event::Event;
use crate::plan::{Item, Plan};
use crate::resource::Resource;
use crate::verdict::Verdict;
use futures::{FutureExt, StreamExt};
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Items that wait for what they need, or are under way, at once.
const CONCURRENCY: usize = 32;

/// Runs the items that run while the stage stands.
pub async fn run(cx: &Context, plan: &Plan) {
    let concurrent: Vec<_> = scheduled(plan, Schedule::Concurrent)
        .map(|item| run_item(cx, plan, item).boxed())
        .collect();
    futures::stream::iter(concurrent)
        .buffer_unordered(CONCURRENCY)
        .collect::<Vec<()>>()
        .await;
    for item in scheduled(plan, Schedule::Exclusive) {
        run_item(cx, plan, item).await;
    }
}

/// Runs the items that judge what is left.
pub async fn run_after_clean_up(cx: &Context, plan: &Plan) {
    for item in scheduled(plan, Schedule::AfterCleanUp) {
        run_item(cx, plan, item).await;
    }
}

fn scheduled(plan: &Plan, schedule: Schedule) -> impl Iterator<Item = &Item> {
    plan.judged()
        .filter(move |item| item.check.info().schedule == schedule)
}

async fn run_item(cx: &Context, plan: &Plan, item: &Item) {
    let name = item.to_string();
    cx.site.events.send(Event::Started(name.clone()));
    let begin = Instant::now();
    let tenants = cx.site.settings.tenant_ids();
    // What it needs has deadlines of its own; the check's begins when that is up, or known not to come. The canary is a control, which may
    // be observed beside the probes.
    let mut needs = item.check.needs(&item.subject, &tenants);
    needs.retain(|resource| *resource != Resource::Enforcement);
    cx.stage.settle(&needs).await;
    let _turn = cx.site.cluster.pace.check().await;
    let limit = cx.site.cluster.pace.limit(item.check.info().timeout);
    let verdict = guard(limit, item.check.run(cx, &item.subject)).await;
    debug_assert!(
        plan.judged().any(|planned| planned.to_string() == name),
        "{name} was not planned"
    );
    cx.site.events.send(Event::Finished {
        item: name,
        verdict,
        took: begin.elapsed(),
    });
}

/// A check's verdict, whatever becomes of it.
async fn guard<E>(limit: Duration, work: impl Future<Output = Result<Verdict, E>>) -> Verdict
where
    crate::verdict::Cause: From<E>,
{
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(Ok(Err(error))) => Verdict::Inconclusive(error.into()),
        Ok(Err(panic)) => {
            Verdict::inconclusive(format!("the check panicked, a fault of ours: {}", words(&*panic)))
        }
        Err(_) => Verdict::inconclusive(format!("no verdict within {} s", limit.as_secs())),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::HarnessError;
    use crate::verdict::Evidence;
    use futures::future::BoxFuture;
    use rstest::rstest;

    type Work = BoxFuture<'static, Result<Verdict, HarnessError>>;

    #[rstest]
    #[case::a_verdict(async { Ok(Verdict::Passed(Evidence::default())) }.boxed(), "passed", "")]
    #[case::an_error(async { Err(HarnessError::new("no pod")) }.boxed(), "inconclusive", "no pod")]
    #[case::a_panic(async { panic!("index out of bounds") }.boxed(), "inconclusive", "index out of bounds")]
    #[case::no_end(futures::future::pending().boxed(), "inconclusive", "no verdict within 5 s")]
    #[tokio::test(start_paused = true)]
    async fn whatever_happens_there_is_one_verdict(
        #[case] work: Work,
        #[case] word: &str,
        #[case] cause: &str,
    ) {
        let verdict = guard(Duration::from_secs(5), work).await;
        assert_eq!(verdict.word(), word);
        if let Verdict::Inconclusive(seen) = verdict {
            assert!(seen.what.contains(cause), "{seen:?}");
        }
    }
}
