//! A tenant file to begin with: it says what the tenant is called, and of everything else, as comments, what it is for and which value
//! it has. Pure; what the fields are for is in the schema ([`crate::schema`]).

use super::Tenant;
use crate::schema;
use crate::yaml::{self, YamlError};
use serde_json::Value;
use std::fmt::Write as _;

/// How far a line of a value is indented for each level.
const STEP: usize = 2;

/// The file of this tenant, of which only id, name and tier are said.
///
/// # Errors
/// A value that YAML cannot hold; none of a tenant is.
pub fn blank(tenant: &Tenant) -> Result<String, YamlError> {
    let schema = schema::tenant();
    let mut text = format!(
        "# Tenant {}. Only id is required. What is commented out has the value that is shown (tier {}): take the '#' away to change it.\n\
         # docs/tenants.md tells more; editors know the fields by schemas/tenant.schema.json.\n",
        tenant.id, tenant.tier
    );
    let mut path: Vec<String> = Vec::new();
    for line in yaml::write(tenant)?.lines() {
        let field = line.trim_start();
        let depth = (line.len() - field.len()) / STEP;
        // Items of a list are nobody's field.
        let name = field
            .split_once(':')
            .map(|(name, _)| name)
            .filter(|_| !field.starts_with('-'));
        let Some(name) = name else {
            let _ = writeln!(text, "#{line}");
            continue;
        };
        path.truncate(depth);
        path.push(name.to_owned());
        write_field(&mut text, &schema, &path, line);
    }
    Ok(text)
}

fn write_field(text: &mut String, schema: &Value, path: &[String], line: &str) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    // What is within an item of a list has no path of its own.
    let Some(about) = schema::about(schema, &names) else {
        let _ = writeln!(text, "#{line}");
        return;
    };
    // Writing to a String does not fail.
    let _ = match names.as_slice() {
        ["id" | "name" | "tier"] => writeln!(text, "\n# {about}\n{line}"),
        [_] => writeln!(text, "\n# {about}\n#{line}"),
        inner => writeln!(
            text,
            "#{:indent$}# {about}\n#{line}",
            "",
            indent = (inner.len() - 1) * STEP
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Tiers;
    use rstest::rstest;

    fn tenant(tier: &str) -> Tenant {
        let mut tenant = Tiers::embedded()
            .of_tier("acme".parse().unwrap(), &tier.parse().unwrap())
            .unwrap();
        tenant.name = Some("Acme Corp. (EU)".parse().unwrap());
        tenant
    }

    /// The file with every field said.
    fn all_said(text: &str) -> String {
        let is_field =
            |line: &&str| line.starts_with('#') && (!line.starts_with("# ") || line.starts_with("#  "));
        text.lines()
            .map(|line| if is_field(&line) { &line[1..] } else { line })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[rstest]
    #[case::standard("standard")]
    #[case::premium("premium")]
    fn the_file_is_the_tenant_with_and_without_its_comments(#[case] tier: &str) {
        let text = blank(&tenant(tier)).unwrap();
        assert_eq!(Tenant::from_yaml(&text).unwrap(), tenant(tier));
        let said = all_said(&text);
        assert_eq!(Tenant::from_yaml(&said).unwrap(), tenant(tier), "{said}");
        assert!(said.contains("\n  limitsCpu: "), "{said}");
        insta::assert_snapshot!(format!("blank {tier}"), text);
    }

    #[test]
    fn a_list_of_objects_is_a_comment_too() {
        let mut of_tier = tenant("premium");
        of_tier.ingress.class_name = Some("nginx".parse().unwrap());
        of_tier.egress = crate::yaml::read("[{cidr: 192.0.2.0/24, ports: [443]}]").unwrap();
        let text = blank(&of_tier).unwrap();
        assert_eq!(Tenant::from_yaml(&all_said(&text)).unwrap(), of_tier);
    }
}
