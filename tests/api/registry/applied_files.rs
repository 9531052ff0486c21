//! Which configuration files are applied: an old file, another issuer, and a file that would end
//! tasks are refused, and running replicas go on.

use errand::{
    app::ApplyOptions,
    bootstrap::{Application, MigrationPolicy},
    config::Config,
    domain::configuration::FileOrder,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    cli::errand,
    server::{Server, decode_claims},
};

on_both_stores!(
    older_file_is_refused_until_an_operator_asks_for_it,
    lower_generation_is_refused,
    file_that_ends_tasks_needs_acceptance,
    database_of_another_issuer_is_refused,
    commands_compare_and_apply_files,
);

impl Server {
    fn edit_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config_file()).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.config_file(), text.replace(from, to)).unwrap();
    }

    /// Starts with the file as it is now, like a replica that does not serve. Returns the error.
    async fn try_start(&self, options: &ApplyOptions) -> Result<(), String> {
        let config = Config::load(&self.config_file(), &|_| None).unwrap();
        let application = Application::build(&config, MigrationPolicy::Always).await.map_err(|e| e.to_string())?;
        let started = application.initialize_with(&config, options).await.map_err(|error| error.to_string());
        application.service.shutdown().await;
        started
    }

    async fn has_agent(&self, id: &str) -> bool {
        self.admin(Method::GET, &format!("/agents/{id}"), None).await.0 == 200
    }
}

fn unasked() -> ApplyOptions {
    ApplyOptions::for_replica("test")
}

async fn older_file_is_refused_until_an_operator_asks_for_it(server: Server) {
    server.edit_config("id = \"stranger\"", "id = \"visitor\"");
    let other = server.replica().await;
    assert!(server.has_agent("visitor").await && !server.has_agent("stranger").await);
    // The layout of a file does not matter.
    server.edit_config("id = \"visitor\"", "id = \"visitor\" # once more");
    server.try_start(&unasked()).await.unwrap();

    server.edit_config("id = \"visitor\" # once more", "id = \"stranger\"");
    let refused = server.try_start(&unasked()).await.unwrap_err();
    for part in ["applied before", "remove agent visitor", "add agent stranger", "--return-to-older"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(server.has_agent("visitor").await && !server.has_agent("stranger").await, "nothing was changed");
    // The first replica still has the older file. It goes on, and the others see it.
    let (_, list) = server.admin(Method::GET, "/replicas", None).await;
    let in_force = |address: &str| {
        let items = list["items"].as_array().unwrap();
        let replica = items.iter().find(|replica| replica["answering"].as_bool().unwrap() == (address == "self"));
        replica.unwrap()["configuration"]["in_force"].clone()
    };
    assert_eq!((in_force("self"), in_force("other")), (json!(false), json!(true)), "{list}");

    let asked = ApplyOptions {
        order: FileOrder::AcceptOlder,
        actor: "admin:command-line".into(),
        applied_by: "alice".into(),
        ..unasked()
    };
    server.try_start(&asked).await.unwrap();
    assert!(!server.has_agent("visitor").await && server.has_agent("stranger").await);
    let history = server.application.service.configuration_history().await.unwrap();
    assert_eq!(history.in_force().unwrap().by, "alice");
    let records = server.audit_records("&event=registry.change").await;
    let record = records.iter().find(|record| record["requested"]["returns_to_older"] == true);
    assert_eq!(record.unwrap()["requested"]["applied_by"], "alice", "{records:?}");
    // The other file is the older one now.
    server.edit_config("id = \"stranger\"", "id = \"visitor\"");
    assert!(server.try_start(&unasked()).await.unwrap_err().contains("applied before"));
    other.stop().await;
    server.stop().await;
}

async fn lower_generation_is_refused(server: Server) {
    server.edit_config("trust_domain =", "generation = 3\ntrust_domain =");
    server.try_start(&unasked()).await.unwrap();
    for (generation, reason) in [("generation = 2\n", "generation 3 is in force"), ("", "the file has no `generation`")]
    {
        server.edit_config("generation = 3\n", generation);
        server.edit_config("id = \"stranger\"", "id = \"visitor\"");
        let refused = server.try_start(&unasked()).await.unwrap_err();
        assert!(refused.contains(reason), "{refused}");
        assert!(server.has_agent("stranger").await);
        server.edit_config("id = \"visitor\"", "id = \"stranger\"");
        let restore = if generation.is_empty() {
            ("trust_domain =", "generation = 3\ntrust_domain =")
        } else {
            (generation, "generation = 3\n")
        };
        server.edit_config(restore.0, restore.1);
    }
    // A higher generation makes any content the newer one.
    server.edit_config("id = \"stranger\"", "id = \"visitor\"");
    server.edit_config("generation = 3", "generation = 4");
    server.try_start(&unasked()).await.unwrap();
    server.edit_config("id = \"visitor\"", "id = \"stranger\"");
    server.edit_config("generation = 4", "generation = 5");
    server.try_start(&unasked()).await.unwrap();
    assert!(server.has_agent("stranger").await);
    server.stop().await;
}

async fn file_that_ends_tasks_needs_acceptance(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await];
    let task = decode_claims(&tokens[0])["txn"].as_str().unwrap().to_owned();
    for (from, to) in [
        ("id = \"planner\"", "id = \"planner-2\""),
        ("issuer = \"https://login.example.com\"", "issuer = \"https://login.example.org\""),
        ("https://files.example.com/mcp", "https://files.example.com/mcp2"),
    ] {
        let whole = std::fs::read_to_string(server.config_file()).unwrap();
        std::fs::write(server.config_file(), whole.replace(from, to)).unwrap();
        if from.starts_with("issuer") {
            server.edit_config("{ \"https://login.example.com\"", "{ \"https://login.example.org\"");
        }
        for accepted in [0, 1] {
            let options = ApplyOptions { max_ended_tasks: accepted, ..unasked() };
            let refused = server.try_start(&options).await.unwrap_err();
            for part in ["ends 2 live tasks", task.as_str(), "--accept-ending 2"] {
                assert!(refused.contains(part), "{from} {part}: {refused}");
            }
        }
        assert!(server.is_active(&tokens[0]).await && server.is_active(&tokens[1]).await, "{from}");
        std::fs::write(server.config_file(), whole).unwrap();
    }
    // What ends no task needs no acceptance.
    server.edit_config("id = \"stranger\"", "id = \"visitor\"");
    server.try_start(&unasked()).await.unwrap();
    server.edit_config("id = \"planner\"", "id = \"planner-2\"");
    server.try_start(&ApplyOptions { max_ended_tasks: 2, ..unasked() }).await.unwrap();
    assert!(!server.is_active(&tokens[0]).await && !server.is_active(&tokens[1]).await);
    server.stop().await;
}

async fn database_of_another_issuer_is_refused(server: Server) {
    let issuer = server.issuer.clone();
    server.edit_config(&format!("issuer = \"{issuer}\""), "issuer = \"https://other.example.com\"");
    let refused = server.try_start(&unasked()).await.unwrap_err();
    for part in [issuer.as_str(), "https://other.example.com", "another database"] {
        assert!(refused.contains(part), "{refused}");
    }
    let (code, _, err) = errand(server.folder.path(), &["admin", "token", "errand.toml"]).await;
    assert!(code == 1 && err.contains("another database"), "{err}");
    server.edit_config("issuer = \"https://other.example.com\"", &format!("issuer = \"{issuer}\""));
    server.try_start(&unasked()).await.unwrap();
    server.stop().await;
}

async fn commands_compare_and_apply_files(server: Server) {
    let folder = server.folder.path();
    let token = server.task_token().await;
    let (code, out, err) = errand(folder, &["config", "diff", "errand.toml"]).await;
    assert!(code == 0 && out.contains("the file declares what is in the store"), "{out} {err}");
    server.edit_config("id = \"planner\"", "id = \"planner-2\"");
    let (code, out, err) = errand(folder, &["config", "diff", "--config", "errand.toml"]).await;
    assert!(code == 0 && out.contains("remove agent planner") && out.contains("--accept-ending 1"), "{out} {err}");
    let (code, _, err) = errand(folder, &["config", "reload", "errand.toml"]).await;
    assert!(code == 1 && err.contains("--accept-ending 1"), "{err}");
    assert!(server.is_active(&token).await);
    let mut requests = server.application.service.subscribe_reload_requests();
    let (code, out, err) = errand(folder, &["config", "reload", "errand.toml", "--accept-ending", "1"]).await;
    assert!(code == 0 && out.contains("add agent planner-2"), "{out} {err}");
    assert!(!server.is_active(&token).await);
    tokio::time::timeout(std::time::Duration::from_secs(30), requests.changed()).await.unwrap().unwrap();

    server.edit_config("id = \"planner-2\"", "id = \"planner\"");
    let (_, out, _) = errand(folder, &["config", "diff", "errand.toml"]).await;
    assert!(out.contains("applied before") && out.contains("--return-to-older"), "{out}");
    let (code, out, err) = errand(folder, &["status", "errand.toml"]).await;
    assert!(code == 0 && out.contains("admin:command-line") && out.contains("OTHER FILE"), "{out} {err}");
    let (code, _, err) = errand(folder, &["config", "reload", "errand.toml", "--return-to-older"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(server.has_agent("planner").await);
    server.stop().await;
}
