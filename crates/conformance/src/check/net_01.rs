//! NET-01: network policies are enforced at all. The canary itself is in `canary`, since every other denial rests on it.

use crate::check::{Check, CheckInfo, Footprint, Profile, Schedule, Severity};
use crate::context::Context;
use crate::error::HarnessError;
use crate::resource::Resource;
use crate::subject::{self, Subject};
use crate::verdict::Verdict;
use futures::FutureExt;
use futures::future::BoxFuture;
use provisioner::TenantId;
use std::time::Duration;

/// The check.
pub(super) struct Net01;

static INFO: CheckInfo = CheckInfo {
    id: "NET-01",
    title: "network policies are enforced on every node",
    profile: Profile::Core,
    severity: Severity::Critical,
    footprint: Footprint::OwnObjects,
    why: "An API server accepts NetworkPolicies whether or not anything enforces them; without an engine, or with one whose agent is down on a node, every promise about the network is void.",
    how: "On each node, in a namespace of the run: a listener is reached, a policy closes it, and it is denied twice while a listener that no policy selects stays reached; the same for a client whose egress is closed.",
    remedy: "install a network plugin that enforces NetworkPolicy (Cilium, Calico, kindnet of kind 0.24 or later), and check that its agent runs on the node that is named",
    schedule: Schedule::Concurrent,
    timeout: Duration::from_secs(180),
};

impl Check for Net01 {
    fn info(&self) -> &'static CheckInfo {
        &INFO
    }

    fn subjects(&self, tenants: &[TenantId]) -> Vec<Subject> {
        subject::cluster(tenants)
    }

    fn needs(&self, _subject: &Subject, _tenants: &[TenantId]) -> Vec<Resource> {
        vec![Resource::Enforcement]
    }

    fn run<'a>(
        &self,
        cx: &'a Context,
        _subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, HarnessError>> {
        async move { Ok(cx.stage.enforcement().await?.verdict.clone()) }.boxed()
    }
}
