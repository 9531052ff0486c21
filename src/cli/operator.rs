//! Commands for who runs the server. They work on its store, beside it while it runs.

use std::future::Future;

use errand::{
    domain::{
        id::{KeyId, Reason, TaskId},
        keys::Occasion,
    },
    house::{self, House, Migrations},
};

use super::{CliFault, With, config, say};

pub(super) fn migrate(with: &With) -> Result<(), CliFault> {
    let config = config::of(with)?;
    block_on(async {
        let store = house::store(&config).await?;
        store.migrate().await?;
        store.ping().await?;
        say("the database has the schema of this version")
    })
}

pub(super) fn list_keys(with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        let keys = house.service.list_keys(&house.cx()?).await?;
        if keys.is_empty() {
            return say("no keys yet: `errand serve` makes the first at its start");
        }
        for (key, state) in keys {
            let retires = key.retires.map(|at| format!(", retires {at}")).unwrap_or_default();
            let gone = key.gone.map(|at| format!(", gone {at}")).unwrap_or_default();
            let state = format!("{state:?}").to_lowercase();
            say(format!("{} {} {state}: signs from {}{retires}{gone}", key.kid, key.algorithm, key.activates))?;
        }
        Ok(())
    })
}

pub(super) fn rotate_keys(with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        let made = house.service.rotate_keys("admin:command-line", Occasion::Command, &house.cx()?).await?;
        if made.is_empty() {
            return say("nothing to do: the next key is already waiting");
        }
        for (algorithm, kid) in made {
            say(format!("made {kid} ({algorithm}); `errand keys list` shows from when on it signs"))?;
        }
        house.service.finish().await;
        Ok(())
    })
}

pub(super) fn revoke_key(kid: &str, reason: &str, with: &With) -> Result<(), CliFault> {
    let kid = kid.parse::<KeyId>()?;
    let reason = reason.parse::<Reason>()?;
    inside(with, |house| async move {
        let made = house.service.revoke_key("admin:command-line", &kid, &reason, None, &house.cx()?).await?;
        house.service.finish().await;
        say(format!("removed {kid}: what it signed is inactive, and it is published no more"))?;
        for (algorithm, kid) in made {
            say(format!("made {kid} ({algorithm}), which signs from now on; whoever caches the JWKS has to fetch it"))?;
        }
        Ok(())
    })
}

pub(super) fn admin_token(with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        // Before the first start of a server there is no key to sign with.
        house.make_due_keys("admin:command-line").await?;
        let issued = house.service.bootstrap_token(&house.cx()?).await?;
        house.service.finish().await;
        say(issued.token.expose())
    })
}

pub(super) fn verify_audit(with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        let found = house.service.verify_audit().await?;
        for (writer, head) in &found.heads {
            say(format!("chain {}: {} records, head {}", writer.0, head.n, head.hash))?;
        }
        for (writer, finding) in &found.findings {
            say(format!("chain {}: {finding}", writer.0))?;
        }
        say(format!("{} records in {} chains", found.records, found.chains))?;
        if found.findings.is_empty() {
            say("nobody touched them; keep the heads elsewhere, and a removed chain shows too")
        } else {
            Err(CliFault::new(format!("{} of the chains were touched", found.findings.len())))
        }
    })
}

pub(super) fn export_audit(with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        let mut written = Ok(());
        house
            .service
            .export_audit(|line| {
                written = serde_json::to_string(line).map_err(CliFault::from).and_then(say);
                written.is_ok()
            })
            .await?;
        written
    })
}

pub(super) fn task_trail(id: &str, after: Option<String>, with: &With) -> Result<(), CliFault> {
    let id = id.parse::<TaskId>()?;
    inside(with, |house| async move {
        let now = house.cx()?.now;
        let trail = house.service.task_trail(id, after).await?;
        let task = &trail.task;
        say(format!("task {id}: \"{}\"", task.purpose))?;
        let requester = &task.requester;
        say(format!("{} ({}) and {}, until {}", requester.subject, requester.issuer, task.root_agent, task.deadline))?;
        if let Some(next) = &trail.next {
            say(format!("… and what was before that: --after {next}"))?;
        }
        for step in &trail.steps {
            say(format!("{}  {}", step.at(), step.tell()))?;
        }
        say(format!("now it is {}", task.state_at(now)))
    })
}

/// Runs something in the house of this configuration.
pub(super) fn inside<F: Future<Output = Result<(), CliFault>>>(
    with: &With,
    work: impl FnOnce(House) -> F,
) -> Result<(), CliFault> {
    let config = config::of(with)?;
    block_on(async {
        let house = House::open(&config, Migrations::IfEmbedded).await?;
        work(house).await
    })
}

pub(super) fn block_on<F: Future<Output = Result<(), CliFault>>>(work: F) -> Result<(), CliFault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}
