//! SEN-01: the probes can see. The same probes that find a tenant closed find one open that is: a third, empty tenant of the run without
//! policies and without a quota. Where they do not, every denial of this run may have another reason than the tenants' own rules.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::probing::{self, CONTROL_TIMEOUT};
use crate::quota::{self, Dimension};
use crate::resource::{Place, Resource};
use crate::subject::{self, Subject};
use crate::targets;
use crate::verdict::{Control, Evidence, Verdict, prove};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use provisioner::{Tenant, TenantId};
use std::time::Duration;

/// The check.
pub(super) struct Sen01;

/// Its id, which `--no-sensitivity` leaves out.
pub const ID: &str = "SEN-01";

static INFO: CheckInfo = CheckInfo {
    id: ID,
    title: "the probes see an open tenant as open",
    profile: Profile::Core,
    severity: Severity::High,
    footprint: Footprint::OwnObjects,
    why: "Something outside of the tenants may close everything: a firewall between nodes, a policy for the whole cluster, a webhook that refuses every pod. Tenants then look isolated, and are not by what they were given.",
    how: "The run makes a third tenant's namespace, with its labels and its Pod Security level, and leaves out policies and quota (and rights: it never opens RBAC). An outsider must reach an agent in it on every port, that agent must reach the sink on every port, and a pod and a volume claim above each dimension of the promised quota must be admitted there (server-side dry run). Nothing here is ever a failure: what does not get through leaves the run inconclusive.",
    remedy: "find what keeps the probes out of a namespace without any policy, or refuses a large pod there: cluster-wide policies of the network plugin, admission webhooks; --no-sensitivity leaves this out",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(120),
};

impl Check for Sen01 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    fn needs(&self, _subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        vec![
            Resource::Agent(Place::Open),
            Resource::Agent(Place::Outsider),
            Resource::Agent(Place::Sink),
        ]
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { judge(cx).await }.boxed()
    }
}

async fn judge(cx: &Context) -> Result<Verdict, HarnessError> {
    let open = cx.stage.agent(&Place::Open).await?;
    let outsider = cx.stage.agent(&Place::Outsider).await?;
    let sink = cx.stage.agent(&Place::Sink).await?;
    let (inward, outward) = (
        targets::every_port("outsider", &open, CONTROL_TIMEOUT),
        targets::every_port("open tenant", &sink, CONTROL_TIMEOUT),
    );
    let id = open.namespace.trim_start_matches("ai-agents-");
    let tenant = cx.site.open_tenant(id)?;
    let (inward, outward, admitted) = futures::join!(
        probing::promised(&outsider, &inward),
        probing::promised(&open, &outward),
        join_all(Dimension::ALL.map(|dimension| admitted(cx, &tenant, dimension)))
    );
    let mut controls: Vec<Control> = inward.iter().chain(&outward).map(Control::reached).collect();
    controls.extend(admitted);
    Ok(match prove(&controls) {
        Ok(proven) => Verdict::Passed(Evidence {
            summary: format!(
                "{} probes reached what is open, {} objects above the quota were admitted where there is none",
                inward.len() + outward.len(),
                Dimension::ALL.len()
            ),
            controls: proven.controls().to_vec(),
            ..Evidence::default()
        }),
        Err(unproven) => Verdict::inconclusive(format!("the probes do not see what is open: {unproven}")),
    })
}

/// That more of a dimension than a tenant is promised is admitted where no quota stands in the way.
async fn admitted(cx: &Context, tenant: &Tenant, dimension: Dimension) -> Control {
    let units = dimension.promised(tenant) + 1;
    let object = dimension.object(units, tenant, &cx.site.mark, &cx.site.settings.agent_image);
    let holds = match quota::dry_run(cx, tenant, object).await {
        Ok(Ok(_)) => Ok("admitted".to_owned()),
        Ok(Err(denial)) => Err(format!("refused: {denial:?}")),
        Err(error) => Err(error.to_string()),
    };
    Control {
        claim: format!(
            "open tenant: a {} with {}={} where there is no quota",
            dimension.asker(),
            dimension.key(),
            dimension.write(units)
        ),
        holds,
    }
}
