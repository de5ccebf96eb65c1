//! Texts that derive from the list of checks and from a plan: `list`, `explain`, `--dry-run`. Pure.

use crate::check::{ALL, Check};
use crate::cluster::{OPTIONAL, permissions};
use crate::names::RunId;
use crate::run::Preview;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The checks, one a line.
pub fn list() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "{:<8}  {:<9} {:<9} {:<14}  TITLE",
        "ID", "PROFILE", "SEVERITY", "FOOTPRINT"
    );
    for check in ALL {
        let info = check.info();
        let (profile, severity) = (info.profile.to_string(), info.severity.to_string());
        let footprint = info.footprint.to_string();
        let _ = writeln!(
            text,
            "{:<8}  {profile:<9} {severity:<9} {footprint:<14}  {}",
            info.id, info.title
        );
    }
    text
}

/// One check, at length.
pub fn explain(check: &dyn Check) -> String {
    let info = check.info();
    let mut text = format!("{} {}\n\n", info.id, info.title);
    let facts = [
        ("profile", info.profile.to_string()),
        ("severity", info.severity.to_string()),
        ("footprint", info.footprint.to_string()),
        ("schedule", info.schedule.to_string()),
        ("timeout", format!("{} s", info.timeout.as_secs())),
    ];
    for (name, value) in facts {
        let _ = writeln!(text, "  {name:<10} {value}");
    }
    for (name, value) in [("why", info.why), ("how", info.how), ("if it fails", info.remedy)] {
        let _ = write!(text, "\n{name}\n{}\n", wrapped(value));
    }
    text
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + word.len() > 98) {
            lines.push(String::from(" "));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// What a run would do: who, where, which items, every object, and the permissions.
pub fn preview(preview: &Preview, run: &RunId) -> String {
    let Preview {
        cluster,
        plan,
        facts,
        missing,
        refused,
        tenants,
    } = preview;
    let mut text = String::new();
    let kind = match &cluster.local {
        Ok(kind) => format!("local ({kind})"),
        Err(why) => format!("not local: {why}"),
    };
    let _ = writeln!(
        text,
        "cluster  {} {} Kubernetes {}, {kind}",
        cluster.context, cluster.server, cluster.version
    );
    let _ = writeln!(text, "user     {}", cluster.user);
    let _ = writeln!(text, "\nitems");
    for item in &plan.items {
        let _ = match &item.left_out {
            Some(left_out) => writeln!(text, "  {item}  (left out: {})", left_out.reason()),
            None => writeln!(text, "  {item}"),
        };
    }
    let _ = writeln!(
        text,
        "\nobjects that would be created, and removed again (the run's id differs each time)"
    );
    let mut by_place: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in plan.objects(tenants, run, facts) {
        let place = entry.namespace.clone().unwrap_or_else(|| "cluster".to_owned());
        by_place
            .entry(place)
            .or_default()
            .push(format!("{:?} {}", entry.kind, entry.name));
    }
    for (place, objects) in by_place {
        let _ = writeln!(text, "  {place}\n    {}", objects.join("\n    "));
    }
    for tenant in &facts.absent {
        let _ = writeln!(
            text,
            "  tenant {tenant} is absent: `provisioner generate --tenant-id {tenant}` writes all that it consists of"
        );
    }
    let _ = writeln!(text, "\npermissions needed, in all namespaces");
    let mut verbs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for permission in permissions() {
        verbs
            .entry(permission.resource)
            .or_default()
            .push(permission.verb);
    }
    for (resource, verbs) in verbs {
        let _ = writeln!(text, "  {resource:<24} {}", verbs.join(", "));
    }
    let _ = match missing.as_slice() {
        [] => writeln!(text, "  {} has them all", cluster.user),
        missing => writeln!(text, "  {} lacks: {}", cluster.user, missing.join(", ")),
    };
    for (check, permission) in OPTIONAL {
        let _ = writeln!(text, "  {permission}: {check} cannot be judged without");
    }
    if let Some(refused) = refused {
        let _ = writeln!(
            text,
            "\nthe run would be refused: {refused}\nhint: {}",
            refused.hint().unwrap_or_default()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn the_list_of_checks() {
        insta::assert_snapshot!("list", list());
    }

    #[test]
    fn a_check_explained() {
        insta::assert_snapshot!("explain", explain(check::find("NET-02").unwrap()));
    }
}
