//! Registration with a real PostgreSQL and Redis, those of `fixtures/shared-services`.

use super::{Case, credentials, with_tenant, without_workloads};
use assert_cmd::Command;
use provisioner::registration::{self, Change, Registered, RegistrationError, State, login};
use provisioner::{ApplyOptions, Silent, TenantId};
use redis::aio::MultiplexedConnection;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

const UNCHANGED: Registered = Registered {
    role: Change::Unchanged,
    user: Change::Unchanged,
};
const CREATED: Registered = Registered {
    role: Change::Created,
    user: Change::Created,
};

/// As [`with_tenant`], for a tenant without pods whose data goes too.
async fn with_data<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    test: impl FnOnce(Case) -> F + Send + 'static,
) {
    with_tenant(name, async move |mut case| {
        without_workloads(&mut case);
        case.apply(&case.manifests(), ApplyOptions::default())
            .await
            .unwrap();
        let outcome = tokio::spawn(test(case.clone())).await;
        let shared = &case.tenant.shared_services;
        let purged = registration::purge(&case.client, shared, &case.tenant.id, &Silent, WITHIN).await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic.into_panic());
        }
        purged.expect("the tenant's data can be removed");
    })
    .await;
}

impl Case {
    async fn register(&self) -> Result<Registered, RegistrationError> {
        registration::register(&self.client, &self.tenant, &Silent, WITHIN).await
    }

    async fn state(&self) -> State {
        let shared = &self.tenant.shared_services;
        registration::state(&self.client, shared, &self.tenant.id, &Silent, WITHIN)
            .await
            .unwrap()
    }

    async fn sql(&self, statements: &str) {
        let shared = &self.tenant.shared_services;
        let admin = registration::postgresql_admin(&self.client, shared, "ai_agents")
            .await
            .unwrap();
        admin.batch_execute(statements).await.unwrap();
    }

    async fn redis(&self) -> MultiplexedConnection {
        registration::redis_admin(&self.client, &self.tenant.shared_services)
            .await
            .unwrap()
    }

    fn id(&self) -> &TenantId {
        &self.tenant.id
    }
}

/// The answer, or what the error begins with.
async fn ask(connection: &mut MultiplexedConnection, command: &str) -> String {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    match cmd.query_async::<redis::Value>(connection).await {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.code().unwrap_or_default().to_owned(),
    }
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_registration_is_repeated_without_effect_and_soon() {
    with_data("registered", async |case| {
        assert_eq!(case.register().await.unwrap(), CREATED);
        let started = Instant::now();
        assert_eq!(case.register().await.unwrap(), UNCHANGED);
        let took = started.elapsed();
        eprintln!("registered again in {took:.0?}");
        assert!(took < Duration::from_millis(500), "{took:.0?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn the_user_in_redis_reaches_its_own_keys_and_nothing_else() {
    with_data("keys", async |case| {
        case.register().await.unwrap();
        let password = credentials::values(&case).await["REDIS_PASSWORD"].clone();
        let password = String::from_utf8(password.0).unwrap();
        let (user, id) = (login(case.id()), case.id());
        let mut own = case.redis().await;
        assert_eq!(ask(&mut own, &format!("AUTH {user} {password}")).await, "ok");
        for allowed in [
            format!("SET tenant:{id}:a 1"),
            format!("GET tenant:{id}:a"),
            format!("EXPIRE tenant:{id}:a 60"),
            format!("TTL tenant:{id}:a"),
            format!("EXISTS tenant:{id}:a"),
            format!("DEL tenant:{id}:a"),
            format!("XGROUP CREATE tenant:{id}:webhooks workers $ MKSTREAM"),
            format!("XADD tenant:{id}:webhooks * a b"),
            format!("XREADGROUP GROUP workers me COUNT 1 STREAMS tenant:{id}:webhooks >"),
            format!("XAUTOCLAIM tenant:{id}:webhooks workers me 0 0"),
            format!("XLEN tenant:{id}:webhooks"),
            "PING".to_owned(),
            "CLIENT SETNAME me".to_owned(),
        ] {
            let answer = ask(&mut own, &allowed).await;
            assert!(
                !answer.is_empty() && !answer.starts_with("NOPERM") && !answer.starts_with("ERR"),
                "{allowed}: {answer}"
            );
        }
        for denied in [
            "GET tenant:other:a".to_owned(),
            "GET a".to_owned(),
            format!("GET tenant:{id}"),
            "XREAD STREAMS tenant:other:webhooks 0".to_owned(),
            format!("XINFO STREAM tenant:{id}:webhooks"),
            "KEYS *".to_owned(),
            "SCAN 0".to_owned(),
            "DBSIZE".to_owned(),
            "CONFIG GET *".to_owned(),
            "ACL LIST".to_owned(),
            "ACL WHOAMI".to_owned(),
            "CLIENT LIST".to_owned(),
            "CLIENT KILL TYPE normal".to_owned(),
            "CLIENT TRACKING ON BCAST".to_owned(),
            "SELECT 1".to_owned(),
            "EVAL return 0".to_owned(),
            "FLUSHALL".to_owned(),
            "MONITOR".to_owned(),
            "INFO".to_owned(),
            "PUBLISH tenant:other:a b".to_owned(),
            "SCRIPT FLUSH".to_owned(),
            "REPLICAOF NO ONE".to_owned(),
        ] {
            assert_eq!(ask(&mut own, &denied).await, "NOPERM", "{denied}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn whatever_was_changed_is_brought_back() {
    with_data("changed", async |case| {
        case.register().await.unwrap();
        let role = login(case.id());
        for statement in [
            "ALTER ROLE \"{role}\" PASSWORD 'another'",
            "ALTER ROLE \"{role}\" PASSWORD NULL",
            "ALTER ROLE \"{role}\" NOLOGIN",
            "ALTER ROLE \"{role}\" SUPERUSER",
            "ALTER ROLE \"{role}\" BYPASSRLS",
            "ALTER ROLE \"{role}\" CONNECTION LIMIT -1",
            "ALTER ROLE \"{role}\" VALID UNTIL '2001-01-01'",
            "GRANT pg_read_all_data TO \"{role}\"",
            "REVOKE ai_agents_tenant FROM \"{role}\"",
        ] {
            case.sql(&statement.replace("{role}", &role)).await;
            let changed = Registered {
                role: Change::Changed,
                ..UNCHANGED
            };
            assert_eq!(case.register().await.unwrap(), changed, "{statement}");
            assert_eq!(case.register().await.unwrap(), UNCHANGED, "{statement}");
        }
        let mut admin = case.redis().await;
        for rule in ["off", "nopass", "resetpass", "~*", "+@all", "allchannels"] {
            assert_eq!(ask(&mut admin, &format!("ACL SETUSER {role} {rule}")).await, "ok");
            let changed = Registered {
                user: Change::Changed,
                ..UNCHANGED
            };
            assert_eq!(case.register().await.unwrap(), changed, "{rule}");
            assert_eq!(case.register().await.unwrap(), UNCHANGED, "{rule}");
        }
        assert_eq!(ask(&mut admin, "ACL LOAD").await, "ok");
        assert_eq!(case.register().await.unwrap(), UNCHANGED, "the users were saved");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn two_registrations_at_once_do_no_harm_nor_do_two_removals() {
    with_data("together", async |case| {
        let (one, other) = futures::join!(case.register(), case.register());
        let roles = [one.unwrap().role, other.unwrap().role];
        assert!(roles.contains(&Change::Created), "{roles:?}");
        assert_eq!(case.register().await.unwrap(), UNCHANGED);
        let shared = &case.tenant.shared_services;
        let purge = || registration::purge(&case.client, shared, case.id(), &Silent, WITHIN);
        let (one, other) = futures::join!(purge(), purge());
        one.unwrap();
        other.unwrap();
        assert!(case.state().await.is_empty());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn a_removal_leaves_nothing_and_takes_nothing_of_others() {
    with_data("purged", async |case| {
        case.register().await.unwrap();
        let (id, role) = (case.id().clone(), login(case.id()));
        let row = |tenant: &str| {
            format!(
                "INSERT INTO ai_agents.webhook (tenant_id, id, subject, body, enhancement, worker, received_at, enhanced_at) \
                 VALUES ('{tenant}', 'x', '', '', '{{}}', '', now(), now());"
            )
        };
        // Its name begins with this one's.
        let neighbour = format!("{id}-2");
        case.sql(&(row(id.as_str()) + &row(&neighbour))).await;
        let mut admin = case.redis().await;
        for key in [format!("tenant:{id}:a"), format!("tenant:{id}:b"), format!("tenant:{neighbour}:a")] {
            ask(&mut admin, &format!("SET {key} 1")).await;
        }
        let was = State {
            role: true,
            rows: 1,
            user: true,
            keys: 2,
        };
        assert_eq!(case.state().await, was);
        let shared = case.tenant.shared_services.clone();
        let purge = || registration::purge(&case.client, &shared, &id, &Silent, WITHIN);
        assert_eq!(purge().await.unwrap(), was);
        assert!(case.state().await.is_empty());
        assert_eq!(purge().await.unwrap(), State::default());
        let neighbour = neighbour.parse().unwrap();
        let others = registration::purge(&case.client, &shared, &neighbour, &Silent, WITHIN);
        assert_eq!(others.await.unwrap(), State { rows: 1, keys: 1, ..State::default() });
        let admin = registration::postgresql_admin(&case.client, &shared, "postgres").await.unwrap();
        let left = admin.query("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await.unwrap();
        assert!(left.is_empty());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
async fn what_is_missing_is_named() {
    with_data("missing", async |mut case| {
        let standard = case.tenant.clone();
        case.tenant.shared_services.postgresql.admin_secret = "no-such".parse().unwrap();
        let error = case.register().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "read Secret no-such in database: it does not exist"
        );
        case.tenant = standard.clone();
        case.tenant.shared_services.redis.service = "no-such".parse().unwrap();
        let error = case.register().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "find Redis in database: Service no-such does not exist"
        );
        case.tenant = standard.clone();
        case.tenant.shared_services.postgresql.port = 9.try_into().unwrap();
        let error = registration::register(&case.client, &case.tenant, &Silent, Duration::from_secs(5)).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("port 9 of Pod postgresql-0 in database: connection refused"),
            "{error}"
        );
        case.tenant = standard;
        case.tenant.shared_services.postgresql.database = "no_such".parse().unwrap();
        let error = case.register().await.unwrap_err();
        assert!(error.to_string().ends_with("(SQLSTATE 3D000)"), "{error}");
    })
    .await;
}

#[test]
#[ignore = "needs a cluster: CONFORMANCE_TEST_CLUSTER"]
fn the_command_registers_and_removes_data_only_when_told() {
    let id = format!("prov-command-{}", std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let templates = directory.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    for name in ["deployment-api", "deployment-worker", "service-api"] {
        std::fs::write(templates.join(format!("{name}.delete")), "").unwrap();
    }
    let run = |args: &[&str]| {
        let mut command = Command::cargo_bin("provisioner").unwrap();
        command
            .args(args)
            .args(["--tenant-id", &id, "--context"])
            .arg(std::env::var("CONFORMANCE_TEST_CLUSTER").unwrap())
            .current_dir(directory.path());
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let first = run(&["apply", "--templates", "templates"]);
    let again = run(&["apply", "--templates", "templates"]);
    let deleted = run(&["delete", "--yes"]);
    let purged = run(&["delete", "--yes", "--purge-data"]);
    let purged_again = run(&["delete", "--yes", "--purge-data"]);
    let made = |what: &str| format!("INFO {what} role tenant-{id} in PostgreSQL");
    assert!(first.0 && first.2.contains(&made("created")), "{first:?}");
    assert!(again.0 && again.2.contains(&made("unchanged")), "{again:?}");
    let kept = format!("provisioner delete --tenant-id {id} --purge-data\n");
    assert!(deleted.0 && deleted.1.ends_with(&kept), "{deleted:?}");
    assert!(
        purged.0
            && purged
                .1
                .ends_with("removed from PostgreSQL and Redis: a role in PostgreSQL, a user in Redis\n"),
        "{purged:?}"
    );
    assert!(
        purged_again.0
            && purged_again
                .1
                .ends_with("removed from PostgreSQL and Redis: nothing\n"),
        "{purged_again:?}"
    );
}
