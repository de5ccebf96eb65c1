//! The platform with a fault in it: applied over the templates as they come, and taken back by applying those again.

use super::Site;
use crate::error::{HarnessError, chain};
use crate::fault::Fault;
use crate::verdict::Cause;
use provisioner::platform::{apply, diff};
use provisioner::tenant::Platform;
use provisioner::{ApplyError, ApplyOptions, Manifest, RenderError, Silent, Templates, render_platform};
use std::sync::atomic::Ordering;

/// What is applied to take the fault back.
pub(super) struct Altered {
    platform: Platform,
    standard: Vec<Manifest>,
}

/// Plants the fault; nothing where it is not in the platform.
///
/// # Errors
/// Why it is not planted: what could not be taken back exactly is left alone.
pub(super) async fn plant(site: &Site, fault: &Fault) -> Result<Option<Altered>, Cause> {
    let Some(templates) = &fault.platform else {
        return Ok(None);
    };
    let mut platform = Platform::default();
    if let Some(tenant) = site.settings.tenants.first() {
        platform.shared_services = tenant.shared_services.clone();
    }
    let render =
        |templates: &Templates| render_platform(&platform, templates).map_err(|error| unusable(&error));
    let (standard, changed) = (render(&Templates::embedded_platform())?, render(templates)?);
    let client = &site.cluster.client;
    let now = diff(client, &platform, &standard, &Silent)
        .await
        .map_err(|error| refused(&error))?;
    if !now.is_applied() {
        return Err(Cause {
            what: "the platform's templates are not applied here as they come, so a change could not be taken back exactly".to_owned(),
            hint: Some(restore_by_hand(site)),
        });
    }
    let altered = Altered { platform, standard };
    let options = ApplyOptions::default();
    match apply(client, &altered.platform, &changed, &options, &Silent).await {
        Ok(_) => Ok(Some(altered)),
        Err(error) => {
            if let Err(error) = altered.restore(site).await {
                site.spoilt.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
            Err(refused(&error))
        }
    }
}

impl Altered {
    /// Takes the fault back.
    ///
    /// # Errors
    /// The API server refused, or did not answer: the fault stands still.
    pub(super) async fn restore(&self, site: &Site) -> Result<(), HarnessError> {
        let options = ApplyOptions::default();
        let applied = apply(
            &site.cluster.client,
            &self.platform,
            &self.standard,
            &options,
            &Silent,
        )
        .await;
        applied.map(drop).map_err(|error| {
            HarnessError::during("take a fault in the platform back", &error).hint(restore_by_hand(site))
        })
    }
}

fn restore_by_hand(site: &Site) -> String {
    format!(
        "provisioner platform apply --context {} --yes",
        site.cluster.context
    )
}

fn unusable(error: &RenderError) -> Cause {
    Cause {
        what: chain(error),
        hint: None,
    }
}

fn refused(error: &ApplyError) -> Cause {
    Cause {
        what: chain(error),
        hint: error.hint(),
    }
}
