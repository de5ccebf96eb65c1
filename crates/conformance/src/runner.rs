//! Runs a plan's checks: all at the same time but those that ask to be alone, each with a deadline and a guard against panics, so that
//! every item ends in exactly one result. Packets get lost and connections are reset: what only asks for such is asked once more, as a whole,
//! where it was undecided.

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
/// What is waited before an undecided check is answered once more.
const PAUSE: Duration = Duration::from_millis(600);

/// How the cause begins where a check panicked.
const PANICKED: &str = "the check panicked, a fault of ours";

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
    let run = || item.check.run(cx, &item.subject);
    let (verdict, again) = decide(limit, item.check.second_try(), run).await;
    if again {
        cx.site.cluster.retries.count(format!("{name} was undecided"));
    }
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

/// A check's verdict, and whether it took a second try: not one that decided nothing either.
async fn decide<F, E>(limit: Duration, second_try: bool, run: impl Fn() -> F) -> (Verdict, bool)
where
    F: Future<Output = Result<Verdict, E>>,
    crate::verdict::Cause: From<E>,
{
    let begin = tokio::time::Instant::now();
    let first = match guard(limit, run()).await {
        Verdict::Inconclusive(first) if second_try && !first.what.starts_with(PANICKED) => first,
        verdict => return (verdict, false),
    };
    // Both are made within the limit of one.
    if begin.elapsed() > limit / 2 {
        return (Verdict::Inconclusive(first), false);
    }
    tokio::time::sleep(PAUSE).await;
    let mut second = guard(limit.saturating_sub(begin.elapsed()), run()).await;
    let told = format!("a first try was undecided: {}", first.what);
    match &mut second {
        Verdict::Passed(evidence) => evidence.observed.insert(0, told),
        Verdict::Failed { observed, .. } => observed.insert(0, told),
        Verdict::Skipped { .. } => return (second, false),
        Verdict::Inconclusive(_) => return (Verdict::Inconclusive(first), false),
    }
    (second, true)
}

/// A check's verdict, whatever becomes of it.
async fn guard<E>(limit: Duration, work: impl Future<Output = Result<Verdict, E>>) -> Verdict
where
    crate::verdict::Cause: From<E>,
{
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(Ok(Err(error))) => Verdict::Inconclusive(error.into()),
        Ok(Err(panic)) => Verdict::inconclusive(format!("{PANICKED}: {}", words(&*panic))),
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
    #[case::decided_at_once(&["passed"], "passed", false)]
    #[case::a_failure_stands(&["failed", "passed"], "failed", false)]
    #[case::a_pass_stands(&["passed", "failed"], "passed", false)]
    #[case::at_the_second(&["inconclusive", "passed"], "passed", true)]
    #[case::broken_at_the_second(&["inconclusive", "failed"], "failed", true)]
    #[case::at_neither(&["inconclusive", "inconclusive", "passed"], "inconclusive", false)]
    #[tokio::test(start_paused = true)]
    async fn what_was_undecided_is_asked_once_more(
        #[case] tries: &[&str],
        #[case] word: &str,
        #[case] expected: bool,
    ) {
        let next = std::sync::Mutex::new(tries.iter());
        let run = || {
            let verdict = match *next.lock().unwrap().next().unwrap() {
                "passed" => Verdict::Passed(Evidence::default()),
                "failed" => Verdict::failed("closed", "open"),
                _ => Verdict::inconclusive("reset"),
            };
            async { Ok::<_, HarnessError>(verdict) }
        };
        let (verdict, again) = decide(Duration::from_secs(5), true, run).await;
        assert_eq!((verdict.word(), again), (word, expected));
        let observed = match verdict {
            Verdict::Passed(evidence) => evidence.observed,
            Verdict::Failed { observed, .. } => observed,
            _ => Vec::new(),
        };
        let told: &[&str] = if expected {
            &["a first try was undecided: reset"]
        } else {
            &[]
        };
        assert_eq!(observed, told);
    }

    #[rstest]
    #[case::one_that_changes_something(false, 0, 1)]
    #[case::one_that_changes_nothing(true, 0, 2)]
    #[case::one_that_took_its_time(true, 3, 1)]
    #[case::one_that_hung(true, 9, 1)]
    #[tokio::test(start_paused = true)]
    async fn both_tries_are_made_within_the_limit_of_one(
        #[case] second_try: bool,
        #[case] seconds: u64,
        #[case] expected: usize,
    ) {
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let run = || {
            tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok::<_, HarnessError>(Verdict::inconclusive("reset"))
            }
        };
        let (verdict, _) = decide(Duration::from_secs(5), second_try, run).await;
        assert_eq!((verdict.word(), tries.into_inner()), ("inconclusive", expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_of_ours_has_no_second_try() {
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let run = || {
            tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async { panic!("index out of bounds") }
        };
        let (verdict, _) = decide::<_, HarnessError>(Duration::from_secs(5), true, run).await;
        assert_eq!((verdict.word(), tries.into_inner()), ("inconclusive", 1));
    }

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
