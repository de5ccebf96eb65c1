//! A tenant at PostgreSQL, with its own credentials and from inside of its namespace: what it says in a session, rows of the run's own
//! that it writes and removes, and what an answer means. What is promised is left to the checks.

use crate::agent::{Again, Agent, no_postgresql};
use crate::context::Context;
use crate::error::HarnessError;
use crate::names::RunId;
use crate::resource::{Costume, Place, Resource};
use crate::settings::Postgresql;
use crate::verdict::{Cause, Control, Observation, Verdict};
use probe::protocol::{Rows, SqlError, SqlRequest, StatementResult};
use provisioner::TenantId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};

/// How long all that is said in one session may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long looking for rows that killed runs left may take, in milliseconds: a table may be large.
const SWEEP_WITHIN_MS: u64 = 3_000;

/// What a check of these tenants' rows needs.
pub fn needs<'a>(tenants: impl IntoIterator<Item = &'a TenantId>) -> Vec<Resource> {
    let mut needs = vec![Resource::SharedServices];
    for tenant in tenants {
        needs.push(Resource::Registration(tenant.clone()));
        needs.push(Resource::Agent(Place::Tenant(tenant.clone(), Costume::Worker)));
    }
    needs
}

/// A tenant that can say something to PostgreSQL.
pub struct Client {
    /// The tenant.
    pub tenant: TenantId,
    /// Where its rows are.
    pub table: Table,
    agent: Arc<Agent>,
    /// One conversation after the other, each to its end, also where the check is given up meanwhile: what is removed after it stays so.
    busy: Arc<Mutex<()>>,
    /// The tenant's, of all checks.
    conversations: Arc<Semaphore>,
    /// Everything but the statements.
    request: SqlRequest,
    /// Whether somebody used the tenant before this run.
    existed: bool,
    run: RunId,
    /// Whether the cluster is one for tests, in which rows of others may be locked for a moment.
    pub local: bool,
}

impl Client {
    /// This tenant, in its worker's costume.
    ///
    /// # Errors
    /// It has no agent or no credential.
    pub async fn of(cx: &Context, tenant: &TenantId) -> Result<Arc<Client>, HarnessError> {
        let agent = cx
            .stage
            .agent(&Place::Tenant(tenant.clone(), Costume::Worker))
            .await?;
        let services = cx.stage.shared_services().await?;
        let password = cx.stage.registration(tenant).await?.postgresql.clone()?;
        let [backend, _] = &services.backends;
        let settings = &cx.site.settings.postgresql;
        Ok(Arc::new(Client {
            tenant: tenant.clone(),
            table: Table(settings.clone()),
            agent,
            busy: Arc::default(),
            conversations: cx.stage.conversations(tenant)?,
            request: SqlRequest {
                host: backend.name.clone(),
                port: backend.port,
                user: settings.user.of(tenant),
                password,
                database: settings.database.clone(),
                timeout_ms: u64::try_from(WITHIN.as_millis()).unwrap_or(u64::MAX),
                statements: Vec::new(),
                hold: None,
            },
            existed: !cx.site.absent.contains(tenant),
            run: cx.site.mark.run.clone(),
            local: cx.site.cluster.local.is_ok(),
        }))
    }

    /// A row of the run's own for this check, not written yet.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn row(&self, check: &str) -> Result<Row, HarnessError> {
        let random = || getrandom::u64().map_err(|error| HarnessError::during("make a nonce", &error));
        // Several of a check may be in the table at once: one for each of its subjects.
        let number = random()? >> 32;
        Ok(Row {
            id: self.run.object(&format!("{check}-{number:08x}")),
            tenant: self.tenant.clone(),
            text: format!("{:016x}", random()?),
        })
    }

    /// Says all of it in one session. After a lost connection to the agent it is said once more, in another session: a script must bear that.
    ///
    /// # Errors
    /// There was no session, or the agent does not answer.
    pub async fn say(&self, script: &Script) -> Result<Vec<StatementResult>, HarnessError> {
        let request = SqlRequest {
            statements: script.0.clone(),
            ..self.request.clone()
        };
        let (agent, busy) = (Arc::clone(&self.agent), Arc::clone(&self.busy));
        let conversations = Arc::clone(&self.conversations);
        let asked = tokio::spawn(async move {
            // In this order: who has a permit waits for nobody but PostgreSQL. Nobody closes the semaphore.
            let _alone = busy.lock().await;
            let _permit = conversations.acquire().await;
            let said = agent.sql_session(&request, Again::Once).await?;
            said.map_err(|why| no_postgresql(&agent.place, &request, &why))
        });
        asked
            .await
            .map_err(|error| HarnessError::during("speak with PostgreSQL", &error))?
    }

    /// Writes a row of its own, in its own context, once it has removed what killed runs left there.
    ///
    /// # Errors
    /// It cannot: nothing can be shown then.
    pub async fn write(&self, row: &Row) -> Result<(), HarnessError> {
        let mut script = Script::default();
        if self.existed {
            self.within(&mut script, &self.table.sweep(&self.run));
        }
        // Where all of it is said twice the row is there already.
        self.within(&mut script, &self.table.delete(&[&row.id]));
        let written = self.within(&mut script, &self.table.insert(row));
        match &self.say(&script).await?[written] {
            Ok(Rows { affected: 1, .. }) => Ok(()),
            Ok(Rows { affected, .. }) => Err(HarnessError::new(format!(
                "{} wrote a row of its own to {}: {affected} rows were written",
                self.request.user, self.table.0.table
            ))),
            Err(error) => Err(HarnessError::new(format!(
                "{} cannot write a row of its own to {}: {}",
                self.request.user,
                self.table.0.table,
                words(error)
            ))
            .hint(advice(error))),
        }
    }

    /// That it sees this row of its own, in its own context.
    pub async fn sees(&self, row: &Row, when: &str) -> Control {
        let mut script = Script::default();
        let seen = self.within(&mut script, &self.table.text_of(&row.id));
        let claim = format!("{} sees its own row, {when}", self.tenant);
        match self.say(&script).await {
            Ok(results) => own_row(claim, &results[seen], row),
            Err(error) => Control {
                claim,
                holds: Err(error.to_string()),
            },
        }
    }

    /// Adds a statement in a transaction of its own in the tenant's context; answers where its result will be.
    pub fn within(&self, script: &mut Script, statement: &str) -> usize {
        script.say("begin");
        script.say(&self.table.enter(&self.tenant));
        let place = script.say(statement);
        script.say("commit");
        place
    }
}

/// What is said in a session, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script(Vec<String>);

impl Script {
    /// Adds a statement; answers where its result will be.
    pub fn say(&mut self, statement: &str) -> usize {
        self.0.push(statement.to_owned());
        self.0.len() - 1
    }
}

/// A row of the run's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id, which says whose run made it: `conformance-1a2b3c4d-pg01-0f0f0f0f`.
    pub id: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// Something that nobody can guess.
    pub text: String,
}

/// The table that holds all tenants' rows: statements about it.
#[derive(Debug, Clone)]
pub struct Table(pub(crate) Postgresql);

impl Table {
    /// Its name.
    pub fn name(&self) -> String {
        let parts: Vec<String> = self.0.table.split('.').map(quoted).collect();
        parts.join(".")
    }

    /// The columns of id, tenant and text.
    pub fn columns(&self) -> [String; 3] {
        let columns = &self.0.columns;
        [&columns.id, &columns.tenant, &columns.text].map(|name| quoted(name))
    }

    /// The setting that says which tenant is at work, as `RESET` takes it.
    pub fn context(&self) -> String {
        let parts: Vec<String> = self.0.context.split('.').map(quoted).collect();
        parts.join(".")
    }

    /// Says which tenant is at work, until the transaction ends.
    pub fn enter(&self, tenant: &TenantId) -> String {
        self.set(tenant.as_str(), true)
    }

    /// Sets the context: until the transaction ends, or for the session.
    pub fn set(&self, value: &str, local: bool) -> String {
        format!(
            "select set_config({}, {}, {local})",
            literal(&self.0.context),
            literal(value)
        )
    }

    /// Writes a row.
    pub fn insert(&self, row: &Row) -> String {
        let [id, tenant, text] = self.columns();
        let values = [row.tenant.as_str(), &row.id, &row.text].map(literal).join(", ");
        format!(
            "insert into {} ({tenant}, {id}, {text}) values ({values})",
            self.name()
        )
    }

    /// What a row says.
    pub fn text_of(&self, row: &str) -> String {
        let [id, _, text] = self.columns();
        format!("select {text} from {} where {id} = {}", self.name(), literal(row))
    }

    /// The ids of these rows that there are, and what they say.
    pub fn texts_of(&self, rows: &[&str]) -> String {
        let [id, _, text] = self.columns();
        format!(
            "select {id}, {text} from {} where {id} in ({}) order by {id}",
            self.name(),
            literals(rows)
        )
    }

    /// Removes these rows.
    pub fn delete(&self, rows: &[&str]) -> String {
        let [id, ..] = self.columns();
        format!("delete from {} where {id} in ({})", self.name(), literals(rows))
    }

    /// Removes the rows that checks and webhooks of other runs left. A Lease keeps those away from the tenant that are under way.
    fn sweep(&self, run: &RunId) -> String {
        let [id, ..] = self.columns();
        let ours = literal("^conformance-[0-9a-f]{8}-(pg0[0-9]-[0-9a-f]{8}|[0-9a-f]{16})$");
        let own = literal(&format!("{}%", run.object("")));
        format!(
            "set local statement_timeout = {SWEEP_WITHIN_MS}; delete from {} where {id} like 'conformance-%' and {id} ~ {ours} and {id} not like {own}",
            self.name()
        )
    }
}

/// An identifier; settings hold no others.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// A string. Backslashes mean themselves (`standard_conforming_strings`), and none of ours has one.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literals(texts: &[&str]) -> String {
    texts
        .iter()
        .map(|text| literal(text))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Rows of the run's own that tenants may have. They are removed when that is asked for, and else, where the check is given up, in passing:
/// what that misses, the next run sweeps.
pub struct Canaries {
    clients: Vec<Arc<Client>>,
    ids: Vec<String>,
}

impl Canaries {
    /// These, in the table or not yet, under whichever of these tenants.
    pub fn of(clients: &[&Arc<Client>], ids: impl IntoIterator<Item = String>) -> Self {
        Canaries {
            clients: clients.iter().map(|client| Arc::clone(client)).collect(),
            ids: ids.into_iter().collect(),
        }
    }

    /// Removes them; the verdict holds only where nothing is left behind, but for a broken promise, which counts whatever happens.
    ///
    /// # Errors
    /// The check's own, or that of the removal.
    pub async fn remove(mut self, verdict: Result<Verdict, HarnessError>) -> Result<Verdict, HarnessError> {
        let (clients, ids) = (std::mem::take(&mut self.clients), std::mem::take(&mut self.ids));
        let removed = futures::future::join_all(clients.iter().map(|client| remove(client, &ids))).await;
        conclude(verdict, removed.into_iter().collect())
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for client in std::mem::take(&mut self.clients) {
            let ids = ids.clone();
            runtime.spawn(async move { drop(remove(&client, &ids).await) });
        }
    }
}

async fn remove(client: &Client, ids: &[String]) -> Result<(), HarnessError> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut script = Script::default();
    let deleted = client.within(&mut script, &client.table.delete(&ids));
    let doing = || {
        format!(
            "remove the run's rows of {} from {}",
            client.tenant, client.table.0.table
        )
    };
    let answer = client.say(&script).await;
    let answer = answer.map_err(|error| HarnessError {
        what: format!("{}: {}", doing(), error.what),
        ..error
    })?;
    match &answer[deleted] {
        Ok(_) => Ok(()),
        Err(error) => Err(HarnessError::new(format!("{}: {}", doing(), words(error)))
            .hint(format!("remove them yourself: {}", client.table.delete(&ids)))),
    }
}

/// A verdict, and what became of the removal of what it was made with.
pub(crate) fn conclude(
    verdict: Result<Verdict, HarnessError>,
    removed: Result<(), HarnessError>,
) -> Result<Verdict, HarnessError> {
    match (verdict, removed) {
        (Ok(Verdict::Passed(_)), Err(error)) => Ok(Verdict::Inconclusive(Cause::from(error))),
        (verdict, _) => verdict,
    }
}

/// That a row's own tenant got it.
pub fn own_row(claim: String, result: &StatementResult, row: &Row) -> Control {
    let holds = match result {
        Ok(Rows { rows, .. }) if rows.len() == 1 && rows[0] == [Some(row.text.clone())] => {
            Ok("its nonce came back".to_owned())
        }
        Ok(Rows { rows, .. }) => Err(match rows.len() {
            0 => "the row is not there".to_owned(),
            1 => "the row says something else".to_owned(),
            count => format!("{count} rows came back"),
        }),
        Err(error) => Err(words(error)),
    };
    Control { claim, holds }
}

/// That a statement concerned exactly one row.
pub fn one_row(claim: String, result: &StatementResult) -> Control {
    let holds = match result {
        Ok(Rows { affected: 1, .. }) => Ok("1 row".to_owned()),
        Ok(Rows { affected, .. }) => Err(format!("{affected} rows")),
        Err(error) => Err(words(error)),
    };
    Control { claim, holds }
}

/// What reading says where nothing may be seen: no row, or a single line of noughts and nulls, as aggregates give.
pub fn nothing_seen(result: &StatementResult) -> Observation {
    match result {
        Ok(Rows { rows, .. }) => {
            let nothing = |value: &Option<String>| matches!(value.as_deref(), None | Some("0" | "f"));
            match rows.as_slice() {
                [] => Observation::Denied("0 rows".to_owned()),
                [row] if row.iter().all(nothing) => Observation::Denied("0 rows".to_owned()),
                [row] if row.len() == 1 => {
                    let value = row[0].as_deref().unwrap_or_default();
                    let count = value.parse::<u64>().ok().map(|count| format!("{count} counted"));
                    Observation::Reached(count.unwrap_or_else(|| "1 row came back".to_owned()))
                }
                rows => Observation::Reached(format!("{} row(s) came back", rows.len())),
            }
        }
        Err(error) if error.sqlstate.as_deref() == Some(NO_PRIVILEGE) => Observation::Denied(refusal(error)),
        Err(error) => Observation::Broken(words(error)),
    }
}

/// Insufficient privilege: a table's or that of a policy (PostgreSQL documentation, appendix A).
pub const NO_PRIVILEGE: &str = "42501";
/// The class of integrity constraint violations. Constraints are looked at after policies: such an error comes from behind them.
const CONSTRAINT: &str = "23";

/// What writing says where nothing may be written.
pub fn nothing_written(result: &StatementResult) -> Observation {
    match result {
        Ok(Rows { affected: 0, .. }) => Observation::Denied("0 rows".to_owned()),
        Ok(Rows { affected, .. }) => Observation::Reached(format!("{affected} row(s) written")),
        Err(error) => match error.sqlstate.as_deref() {
            Some(NO_PRIVILEGE) => Observation::Denied(refusal(error)),
            Some(state) if state.starts_with(CONSTRAINT) => {
                Observation::Reached(format!("past the policies: {}", words(error)))
            }
            _ => Observation::Broken(words(error)),
        },
    }
}

/// A refusal in short: its words name a table, and would tell refusals apart that are the same.
fn refusal(error: &SqlError) -> String {
    let state = error.sqlstate.as_deref().unwrap_or_default();
    let by = if error.message.contains("row-level security") {
        "row-level security"
    } else {
        "no privilege"
    };
    format!("{state} {by}")
}

/// An error as people read it.
pub fn words(error: &SqlError) -> String {
    match &error.sqlstate {
        Some(state) => format!("{state} {}", error.message),
        None => error.message.clone(),
    }
}

/// What to do where a tenant cannot write a row of its own.
fn advice(error: &SqlError) -> &'static str {
    match error.sqlstate.as_deref() {
        Some("42P01" | "3F000" | "42703") => {
            "enhancer migrate makes the table; another application's is named by postgresql.table and postgresql.columns in the settings"
        }
        Some(NO_PRIVILEGE) => {
            "the tenant's role needs SELECT, INSERT, UPDATE and DELETE on the table, and a policy that lets it write in its own context (postgresql.context in the settings): provisioner apply registers it, enhancer migrate makes the policy"
        }
        Some("23502") => "the table's other columns need defaults: name another table in the settings",
        _ => "see PostgreSQL's log",
    }
}

#[cfg(test)]
pub(crate) mod tests;
