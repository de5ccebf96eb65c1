use super::*;
use crate::calls::Cause;
use rstest::rstest;

#[rstest]
#[case::plain("1", "34", Some(34))]
#[case::of_a_cloud("1", "34+", Some(34))]
#[case::another_major("2", "0", None)]
#[case::nothing("1", "", None)]
fn the_minor_version(#[case] major: &str, #[case] text: &str, #[case] expected: Option<u32>) {
    assert_eq!(minor(major, text), expected);
}

#[rstest]
#[case::first(Some(28), false)]
#[case::last(Some(36), false)]
#[case::older(Some(27), true)]
#[case::newer(Some(37), true)]
#[case::unknown(None, true)]
fn another_version_is_a_warning_and_no_failure(#[case] minor: Option<u32>, #[case] warning: bool) {
    let finding = judge_version("v1.x", minor);
    assert_eq!((finding.state, finding.warning), (State::Ok, warning));
    assert_eq!(finding.remedy.is_some(), warning);
}

#[test]
fn a_name_that_no_check_has_is_answered_with_those_that_there_are() {
    let error = "canary".parse::<Check>().unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no check \"canary\"; there are: cluster, permissions, namespace, ingress, postgresql, redis, dns, platform, registration, metrics, enforcement"
    );
    for check in Check::ALL {
        assert_eq!(check.name().parse(), Ok(check));
    }
}

fn tenant(registration: bool) -> Tenant {
    Tenant {
        registration,
        ..Tenant::standard("acme".parse().unwrap())
    }
}

fn known(role: bool, user: bool) -> Result<Known, RegistrationError> {
    Ok(Known { role, user })
}

fn no_secret() -> Result<Known, RegistrationError> {
    Err(RegistrationError::Secret {
        name: "postgresql-admin".to_owned(),
        namespace: "database".to_owned(),
        problem: "it does not exist".to_owned(),
        of_tenant: false,
    })
}

fn unreachable() -> Result<Known, RegistrationError> {
    Err(RegistrationError::Unreachable {
        service: "Redis",
        namespace: "database".to_owned(),
        problem: "connection refused".to_owned(),
        tried_for: None,
    })
}

fn unanswered() -> Result<Known, RegistrationError> {
    Err(RegistrationError::Call(CallError {
        what: "get Secret x".to_owned(),
        tried_for: None,
        cause: Cause::Silence(Duration::from_secs(1)),
    }))
}

#[rstest]
#[case::known(true, known(true, true), State::Ok)]
#[case::new(true, known(false, false), State::Ok)]
#[case::no_account(true, no_secret(), State::Missing)]
#[case::no_migrations(true, Err(RegistrationError::NoGroupRole { role: "tenant-acme".to_owned() }), State::Missing)]
#[case::down(true, unreachable(), State::Unknown)]
#[case::no_answer(true, unanswered(), State::Unknown)]
#[case::known_by_others(false, known(true, true), State::Ok)]
#[case::not_known_by_others(false, known(true, false), State::Missing)]
#[case::nothing_to_look_with(false, no_secret(), State::Skipped)]
fn a_tenant_has_to_be_known_where_somebody_else_registers_it(
    #[case] ours: bool,
    #[case] answer: Result<Known, RegistrationError>,
    #[case] expected: State,
) {
    let finding = judge_registration(&tenant(ours), answer);
    assert_eq!(finding.state, expected, "{finding:?}");
    if matches!(expected, State::Missing | State::Unknown) {
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
}

#[test]
fn only_what_was_looked_at_and_found_makes_a_report_complete() {
    let report = |state| Report {
        findings: vec![Finding::new(Check::Dns, "", state, "")],
        ..Report::default()
    };
    assert!(report(State::Ok).is_complete());
    assert!(report(State::Skipped).is_complete());
    assert!(!report(State::Missing).is_complete());
    assert!(!report(State::Unknown).is_complete());
    let left = Report {
        left: vec!["Namespace x".to_owned()],
        ..report(State::Ok)
    };
    assert!(!left.is_complete());
}

#[test]
fn the_table_has_a_line_for_each_and_its_remedy_below() {
    let report = Report {
        findings: vec![
            Finding::new(Check::Enforcement, "", State::Skipped, "--skip"),
            Finding::new(
                Check::Ingress,
                "ingress-nginx",
                State::Missing,
                "it does not exist",
            )
            .mend("put it up"),
            judge_version("v1.37.0", Some(37)),
        ],
        left: vec!["Namespace preflight-1".to_owned()],
        interrupted: false,
    };
    insta::assert_snapshot!(report.in_order().to_string());
}
