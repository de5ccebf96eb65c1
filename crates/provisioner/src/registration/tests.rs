use super::*;
use rstest::rstest;

fn refused(code: &str) -> RegistrationError {
    RegistrationError::Postgresql {
        what: "register role tenant-acme in PostgreSQL".to_owned(),
        code: code.to_owned(),
        message: "no".to_owned(),
        tried_for: None,
    }
}

#[rstest]
#[case::group(RegistrationError::NoGroupRole { role: "tenant-acme".to_owned() }, "enhancer migrate")]
#[case::no_database(refused("3D000"), "enhancer migrate")]
#[case::password(refused("28P01"), "Secret")]
#[case::unreachable(RegistrationError::Unreachable { service: "Redis", namespace: "database".to_owned(), problem: "x".to_owned(), tried_for: None }, "kubectl get pods --namespace database")]
#[case::no_secret(RegistrationError::Secret { name: "redis-admin".to_owned(), namespace: "database".to_owned(), problem: "it does not exist".to_owned(), of_tenant: false }, "adminSecret")]
#[case::no_own_secret(RegistrationError::Secret { name: CREDENTIALS.to_owned(), namespace: "ai-agents-acme".to_owned(), problem: "it does not exist".to_owned(), of_tenant: true }, "provisioner apply")]
fn errors_say_what_to_do(#[case] error: RegistrationError, #[case] remedy: &str) {
    let hint = error.hint().unwrap();
    assert!(hint.contains(remedy), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_and_told_and_what_does_not_is_final() {
    let told = std::sync::Mutex::new(0);
    let progress = |step: &Step| {
        if matches!(step, Step::Retrying { .. }) {
            *told.lock().unwrap() += 1;
        }
    };
    let patience = Patience::new(Duration::from_secs(5), &progress);
    let mut answers = vec![
        Err(refused("28P01")),
        Err(refused("57P03")),
        Err(refused("08006")),
    ];
    let result: Result<(), _> = patience
        .attempt("try", || std::future::ready(answers.pop().unwrap_or(Ok(()))))
        .await;
    assert!(
        matches!(&result, Err(RegistrationError::Postgresql { code, tried_for: None, .. }) if code == "28P01"),
        "{result:?}"
    );
    assert_eq!(*told.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_in_time_says_how_long_it_was_tried() {
    let patience = Patience::new(Duration::from_secs(5), &Silent);
    let error = patience
        .attempt("try", || std::future::ready(Err::<(), _>(refused("57P03"))))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(": given up after 4."), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_what_was_seen_before_it() {
    let patience = Patience::new(Duration::from_secs(5), &Silent);
    let mut seen = Some(refused("57P03"));
    let error = patience
        .attempt("try", || {
            let seen = seen.take();
            async move {
                match seen {
                    Some(error) => Err::<(), _>(error),
                    None => std::future::pending().await,
                }
            }
        })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("57P03"), "{error}");
}

#[test]
fn a_state_says_what_there_is() {
    let state = State {
        role: true,
        rows: 3,
        ..State::default()
    };
    assert_eq!(state.to_string(), "a role in PostgreSQL, 3 row(s)");
    assert_eq!(State::default().to_string(), "nothing");
    assert!(State::default().is_empty() && !state.is_empty());
}
