//! `provisioner apply`.

use super::{Prepared, open, prepare};
use crate::cli::{ApplyArgs, OutputFormat};
use crate::console::{self, Log, Tally};
use crate::failure::Failure;
use futures::StreamExt;
use futures::stream;
use provisioner::{
    Applied, ApplyOptions, Connection, Manifest, Tenant, TenantId, apply, generate, registration,
    wait_ready_for,
};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Instrument;

/// How long PostgreSQL and Redis are tried for.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);

/// What became of one tenant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    id: TenantId,
    namespace: String,
    state: State,
    /// None where it came to nothing.
    #[serde(flatten)]
    applied: Option<Applied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// Everything is there, and serves.
    Ready,
    /// Readiness was not awaited.
    Applied,
    /// Refused, in conflict, not ready in time, or the cluster did not answer.
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Applied => "applied",
            Self::Failed => "failed",
        }
    }
}

/// What is the same for every tenant.
struct Work {
    connection: Connection,
    generated: PathBuf,
    options: ApplyOptions,
    timeout: Duration,
    /// Several tenants on a terminal: one line tells how far they are, and steps are for those who ask for them.
    brief: bool,
}

pub(super) async fn run(args: ApplyArgs) -> Result<(), Failure> {
    let prepared = prepare(args.selection)?;
    let format = args.output.output;
    let several = prepared.len() > 1;
    let work = Work {
        connection: open(args.cluster).await?,
        generated: args.generated.generated,
        options: ApplyOptions {
            force_conflicts: args.force_conflicts,
            ..ApplyOptions::default()
        },
        timeout: args.timeout,
        brief: several && console::has_terminal(),
    };
    let mut tally = Tally::new(if several { prepared.len() } else { 0 });
    let mut outcomes = Vec::new();
    let mut under_way = stream::iter(&prepared)
        .map(|one| work.on_one_of(one, several))
        .buffer_unordered(usize::from(args.jobs));
    while let Some(outcome) = under_way.next().await {
        tell(&outcome, format, several);
        tally.done(outcome.state == State::Failed);
        outcomes.push(outcome);
    }
    drop((under_way, tally));
    outcomes.sort_by(|a, b| a.id.cmp(&b.id));
    conclude(outcomes, format)
}

/// Says at once what became of a tenant. The failure of a single one is the command's own.
fn tell(outcome: &Outcome, format: OutputFormat, several: bool) {
    let Outcome { namespace, state, .. } = outcome;
    match (&outcome.failure, &outcome.applied) {
        (Some(failure), _) if several => console::complain_of(namespace, failure),
        (None, Some(applied)) if format == OutputFormat::Text => {
            console::result(format_args!(
                "namespace {namespace} is {}: {applied}",
                state.word()
            ));
        }
        _ => {}
    }
}

/// The whole result, and the command's own.
fn conclude(mut outcomes: Vec<Outcome>, format: OutputFormat) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Document<'o> {
        tenants: &'o [Outcome],
    }
    if format == OutputFormat::Json {
        console::document("Applied", &Document { tenants: &outcomes });
    }
    if let [outcome] = outcomes.as_mut_slice() {
        return outcome.failure.take().map_or(Ok(()), Err);
    }
    let count = |state| outcomes.iter().filter(|outcome| outcome.state == state).count();
    let parts: Vec<String> = [State::Ready, State::Applied, State::Failed]
        .into_iter()
        .filter(|state| count(*state) > 0)
        .map(|state| format!("{} {}", count(state), state.word()))
        .collect();
    let total = outcomes.len();
    if format == OutputFormat::Text {
        console::result(format_args!("{total} tenants: {}", parts.join(", ")));
    }
    let failed = outcomes.iter().filter(|outcome| outcome.state == State::Failed);
    let failed: Vec<&str> = failed.map(|outcome| outcome.id.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "apply {total} tenants: {} failed: {}",
            failed.len(),
            failed.join(", ")
        ),
        "mend what is said above of each, then the same again: what is done already stays",
    ))
}

impl Work {
    /// Applies one tenant; of several, its log lines bear its id.
    async fn on_one_of(&self, one: &Prepared, several: bool) -> Outcome {
        if several {
            let span = tracing::info_span!("tenant", id = %one.tenant.id);
            self.on(one).instrument(span).await
        } else {
            self.on(one).await
        }
    }

    async fn on(&self, one: &Prepared) -> Outcome {
        let mut applied = None;
        let result = self.apply(one, &mut applied).await;
        let (state, failure) = match result {
            Ok(state) => (state, None),
            Err(failure) => (State::Failed, Some(failure)),
        };
        Outcome {
            id: one.tenant.id.clone(),
            namespace: one.tenant.namespace(),
            state,
            applied,
            error: failure.as_ref().map(Failure::text),
            hint: failure.as_ref().and_then(|failure| failure.hint.clone()),
            failure,
        }
    }

    async fn apply(
        &self,
        Prepared { tenant, manifests }: &Prepared,
        applied: &mut Option<Applied>,
    ) -> Result<State, Failure> {
        let (client, log) = (&self.connection.client, Log::of_steps(self.brief));
        self.write(tenant, manifests)?;
        *applied = Some(apply(client, manifests, &tenant.id, &self.options, &log).await?);
        // What API and worker log in with; they are not ready without.
        if tenant.registration {
            registration::register(client, tenant, &log, REGISTER_WITHIN).await?;
        } else {
            self.say("not registered with PostgreSQL and Redis: the tenant file says so");
        }
        if self.timeout.is_zero() {
            return Ok(State::Applied);
        }
        wait_ready_for(client, &tenant.id, manifests, self.timeout, &log).await?;
        Ok(State::Ready)
    }

    fn write(&self, tenant: &Tenant, manifests: &[Manifest]) -> Result<(), Failure> {
        let count = generate(&self.generated, &tenant.id, manifests)?.len();
        let directory = self.generated.join(tenant.id.as_str());
        self.say(&format!("generated {count} manifests in {}", directory.display()));
        Ok(())
    }

    fn say(&self, step: &str) {
        if self.brief {
            tracing::debug!("{step}");
        } else {
            tracing::info!("{step}");
        }
    }
}
