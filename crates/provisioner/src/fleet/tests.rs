use super::*;
use rstest::rstest;
use std::fs;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn of(file: &Path) -> Selection {
    Selection {
        file: Some(file.to_owned()),
        ..Selection::default()
    }
}

/// The error without the directory's own name.
fn message(directory: &Path, error: &SelectionError) -> String {
    error
        .to_string()
        .replace(&format!("{}/", directory.display()), "")
}

#[test]
fn an_id_alone_is_a_tenant_with_the_standard_values() {
    let id: TenantId = "acme".parse().unwrap();
    let selection = Selection {
        tenant_id: Some(id.clone()),
        ..Selection::default()
    };
    let expected = Member {
        tenant: Tenant::standard(id),
        file: None,
    };
    assert_eq!(selection.members(), Ok(vec![expected]));
    assert_eq!(Selection::default().members(), Err(SelectionError::Unnamed));
}

#[test]
fn a_directory_gives_every_tenant_file_in_it_and_nothing_else() {
    let directory = directory(&[
        ("b.yaml", "id: beta"),
        ("a.yml", "id: alpha"),
        ("README.md", "no: tenant"),
        ("c.yaml.bak", "id: gamma"),
    ]);
    fs::create_dir(directory.path().join("old.yaml")).unwrap();
    let members = of(directory.path()).members().unwrap();
    let found: Vec<(String, &str)> = members
        .iter()
        .map(|member| {
            let file = member.file.as_deref().unwrap().file_name().unwrap();
            (member.tenant.id.to_string(), file.to_str().unwrap())
        })
        .collect();
    assert_eq!(
        found,
        [("alpha".to_owned(), "a.yml"), ("beta".to_owned(), "b.yaml")]
    );
}

#[test]
fn an_id_picks_one_tenant_of_a_directory() {
    let directory = directory(&[("a.yaml", "id: alpha"), ("b.yaml", "id: beta")]);
    let pick = |id: &str| {
        let selection = Selection {
            tenant_id: Some(id.parse().unwrap()),
            ..of(directory.path())
        };
        selection.members()
    };
    let members = pick("beta").unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].tenant.id.as_str(), "beta");
    let error = pick("gamma").unwrap_err().to_string();
    assert!(
        error.starts_with("find tenant gamma in ") && error.ends_with("it is in none of its 2 tenant files"),
        "{error}"
    );
}

#[rstest]
#[case::two_of_one_id(
    &[("a.yaml", "id: acme"), ("b.yaml", "id: acme"), ("c.yaml", "id: acme")],
    "tenant acme is in two files: a.yaml and b.yaml"
)]
#[case::unknown_field(
    &[("a.yaml", "id: alpha"), ("b.yaml", "id: beta\nquota:\n  limitsCPU: 4\n")],
    "read tenant file b.yaml: quota: unknown field `limitsCPU`"
)]
#[case::contradiction(
    &[("a.yaml", "id: alpha\nquota:\n  pods: 3\n")],
    "read tenant file a.yaml: quota.pods: 3 is less than the 4 "
)]
#[case::every_invalid_file(
    &[("a.yaml", "id: UPPER"), ("b.yaml", "name: b"), ("c.yaml", "id: gamma")],
    "read tenant files: 2 cannot be used:\n  a.yaml: id: tenant id \"UPPER\" has 'U' at position 1"
)]
#[case::no_text(&[("a.yaml", "\0")], "read tenant file a.yaml: control characters are not allowed")]
fn a_directory_with_a_mistake_gives_no_tenant_at_all(#[case] files: &[(&str, &str)], #[case] expected: &str) {
    let directory = directory(files);
    let error = of(directory.path()).members().unwrap_err();
    let message = message(directory.path(), &error);
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_directory_without_tenant_files_is_a_mistake() {
    let directory = directory(&[("README.md", "nothing")]);
    let error = of(directory.path()).members().unwrap_err();
    assert_eq!(error, SelectionError::Empty(directory.path().to_owned()));
}

const TIERS: &str = "tiers: {standard: {quota: {pods: 12}}, gold: {quota: {pods: 40}}}";

#[test]
fn a_tiers_file_may_lie_beside_the_tenant_files() {
    let directory = directory(&[
        ("a.yaml", "id: alpha"),
        ("b.yaml", "id: beta\ntier: gold"),
        ("tiers.yaml", TIERS),
    ]);
    let selection = Selection {
        tiers: Some(directory.path().join("./tiers.yaml")),
        ..of(directory.path())
    };
    let pods: Vec<u32> = selection
        .members()
        .unwrap()
        .iter()
        .map(|member| member.tenant.quota.pods)
        .collect();
    assert_eq!(pods, [12, 40]);
    let by_id = Selection {
        tenant_id: Some("gamma".parse().unwrap()),
        file: None,
        ..selection
    };
    assert_eq!(by_id.members().unwrap()[0].tenant.quota.pods, 12);
    let error = of(directory.path()).members().unwrap_err().to_string();
    assert!(
        error.contains("b.yaml: tier: tier gold does not exist; there are: premium, standard"),
        "{error}"
    );
}

#[test]
fn a_tiers_file_with_a_mistake_is_named() {
    let directory = directory(&[("t.yaml", "tiers:\n  gold:\n    quota: {pods: 1}\n")]);
    let selection = Selection {
        tenant_id: Some("acme".parse().unwrap()),
        tiers: Some(directory.path().join("t.yaml")),
        ..Selection::default()
    };
    let error = selection.members().unwrap_err();
    let message = message(directory.path(), &error);
    assert!(
        message.starts_with("read tiers file t.yaml: tiers.gold.quota.pods: 1 is less than the 4 "),
        "{message}"
    );
    assert!(message.ends_with("at line 3 column 19"), "{message}");
}
