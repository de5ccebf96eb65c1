use super::*;
use rstest::rstest;

const AFTER: Option<Duration> = Some(Duration::from_millis(120));

fn round(out: Seen, into: Seen) -> Vec<Seen> {
    vec![out, into]
}

fn unclear() -> Seen {
    Seen::Unclear("ConnectedWithoutEcho".to_owned())
}

#[rstest]
#[case::enforced(
    AFTER,
    Seen::Denied,
    Seen::Denied,
    Seen::Reached,
    State::Ok,
    "120 ms after they were made"
)]
#[case::neither(
    None,
    Seen::Reached,
    Seen::Reached,
    Seen::Reached,
    State::Missing,
    "policy for outgoing ones does not allow, and a connection passes that the policy for incoming"
)]
#[case::no_egress(
    None,
    Seen::Reached,
    Seen::Denied,
    Seen::Reached,
    State::Missing,
    "policy for outgoing ones"
)]
#[case::no_ingress(
    None,
    Seen::Denied,
    Seen::Reached,
    Seen::Reached,
    State::Missing,
    "policy for incoming ones"
)]
#[case::passes_again(
    AFTER,
    Seen::Denied,
    Seen::Reached,
    Seen::Reached,
    State::Missing,
    "policy for incoming ones"
)]
#[case::listener_died(
    AFTER,
    Seen::Denied,
    Seen::Denied,
    Seen::Denied,
    State::Unknown,
    "both policies allow does not pass any more"
)]
#[case::a_proxy_accepts(AFTER, Seen::Denied, unclear(), Seen::Reached, State::Unknown, "is not clear")]
#[case::slow(
    None,
    Seen::Denied,
    Seen::Denied,
    Seen::Reached,
    State::Unknown,
    "not in force everywhere within 30 s"
)]
fn a_denial_counts_only_beside_a_connection_that_passes(
    #[case] after: Option<Duration>,
    #[case] out: Seen,
    #[case] into: Seen,
    #[case] open: Seen,
    #[case] expected: State,
    #[case] detail: &str,
) {
    let closed = [round(Seen::Denied, Seen::Denied), round(out, into)];
    let finding = judge(weigh(after, vec!["n1".to_owned()], &closed, &[open]), "i:1");
    assert_eq!(finding.state, expected, "{finding:?}");
    assert!(finding.detail.contains(detail), "{finding:?}");
}

#[test]
fn an_image_that_nodes_do_not_have_is_told_with_what_to_do() {
    let undecided = Undecided::new("Pod client does not start: ErrImageNeverPull: x");
    let finding = judge(Err(undecided), "i:1");
    assert_eq!(finding.state, State::Unknown);
    assert!(finding.remedy.unwrap().contains("--agent-image IMAGE"));
}
