//! Commands of the binary: their output and exit codes, next to a server on the same store.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use errand::{
    adapters::keyring::verify_checkpoint,
    app::{ExportLine, OfflineVerification, PruneError, RequestContext, VerifiedExport},
    bootstrap::{Application, MigrationPolicy},
    domain::time::{Lifetime, Timestamp},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{Server, decode_claims, form, form_with_changes, secret, wait_until},
    support::TestStore,
};

on_both_stores!(
    check_config_reports_all_errors,
    keys_commands_and_bootstrap_token_work,
    audit_verify_and_export_work,
    pruned_trail_verifies,
    forgotten_person_is_nowhere,
    token_commands_work,
    printed_text_has_no_invisible_characters,
    serve_stops_on_signal,
    serve_reloads_on_hangup_and_on_command,
    serve_without_its_address_writes_nothing,
);

/// Runs a command with an empty environment. Returns the exit code, standard output and standard
/// error.
pub async fn errand(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null());
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn check_config_reports_all_errors(server: Server) {
    let folder = server.folder.path();
    let (code, out, err) = errand(folder, &["check-config", "errand.toml"]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(errand(folder, &["check-config", "--config", "errand.toml"]).await.1, out);
    assert_eq!(errand(folder, &["check-config"]).await.0, 2);
    assert_eq!(errand(folder, &["check-config", "errand.toml", "--config", "errand.toml"]).await.0, 2);
    assert!(out.contains("errand.toml: valid") && out.contains("planner") && out.contains(&server.issuer), "{out}");
    for text in [&out, &err] {
        for client in ["reader", "files", "ops"] {
            assert!(!text.contains(&secret(client)), "a secret is shown");
        }
    }
    let valid = std::fs::read_to_string(server.config_file()).unwrap();
    for (name, from, to, key, reason) in [
        ("an unknown key", "trust_domain =", "trust_domian =", "trust_domian", "trust_domain"),
        ("a bad URL", "issuer = \"http://127", "issuer = \"ftp://127", "issuer", "https"),
        ("a missing file", "reader.secret", "nowhere.secret", "secret_file", "can't read"),
        (
            "an unknown agent",
            "may_delegate_to = [\"reader\"]",
            "may_delegate_to = [\"unknown\"]",
            "may_delegate_to",
            "unknown",
        ),
        ("a reserved id", "id = \"stranger\"", "id = \"errand-stranger\"", "id", "errand"),
        ("invalid TOML", "[store]", "[store", "", "TOML syntax"),
    ] {
        assert!(valid.contains(from), "{name}");
        std::fs::write(folder.join("invalid.toml"), valid.replacen(from, to, 1)).unwrap();
        let (code, out, err) = errand(folder, &["check-config", "invalid.toml"]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{name}: {err}");
        assert!(err.contains("invalid.toml") && err.contains(key) && err.contains(reason), "{name}: {err}");
        // No other command accepts the file either.
        for command in [
            &["migrate", "--config", "invalid.toml"][..],
            &["serve", "--config", "invalid.toml"],
            &["keys", "list", "--config", "invalid.toml"],
        ] {
            assert_eq!(errand(folder, command).await.0, 1, "{name} {command:?}");
        }
    }
    let (code, _, err) = errand(folder, &["check-config", "not-there.toml"]).await;
    assert!(code == 1 && err.contains("not-there.toml"), "{err}");
    assert_eq!(errand(folder, &["no-such-command"]).await.0, 2);
    server.stop().await;
}

async fn keys_commands_and_bootstrap_token_work(server: Server) {
    let folder = server.folder.path();
    let config = ["--config", "errand.toml"];
    let (code, out, err) = errand(folder, &[&["migrate"][..], &config].concat()).await;
    assert!(code == 0 && out.contains("schema"), "a repeated migration failed: {err}");

    let (code, list, err) = errand(folder, &[&["keys", "list"][..], &config].concat()).await;
    assert_eq!(code, 0, "{err}");
    let kid = server.jwks().await["keys"][0]["kid"].as_str().unwrap().to_owned();
    assert!(list.lines().count() == 1 && list.contains(&kid) && list.contains("ES256 active"), "{list}");
    let (code, out, err) = errand(folder, &[&["keys", "rotate"][..], &config].concat()).await;
    assert!(code == 0 && out.contains("created "), "{out} {err}");
    let (code, out, _) = errand(folder, &[&["keys", "rotate"][..], &config].concat()).await;
    assert!(code == 0 && out.contains("nothing to do"), "{out}");
    let (_, list, _) = errand(folder, &[&["keys", "list"][..], &config].concat()).await;
    assert!(list.lines().count() == 2 && list.contains("pending"), "{list}");
    assert_eq!(
        server.jwks().await["keys"].as_array().unwrap().len(),
        2,
        "the running server publishes the new key at once"
    );

    let revoke = |kid: &'static str| [&["keys", "revoke", kid, "--reason", "it leaked"][..], &config].concat();
    let (code, _, err) = errand(folder, &revoke("unknown")).await;
    assert!(code == 1 && err.contains("no such key"), "{err}");
    let (code, out, err) = errand(folder, &revoke(kid.clone().leak())).await;
    assert!(code == 0 && out.contains(&format!("removed {kid}")), "{out} {err}");
    let remaining = server.jwks().await["keys"].as_array().unwrap().clone();
    assert!(remaining.len() == 1 && remaining[0]["kid"] != *kid, "the pending key remains: {remaining:?}");

    let (code, token, err) = errand(folder, &[&["admin", "token"][..], &config].concat()).await;
    assert_eq!((code, token.lines().count()), (0, 1), "{err}");
    let token = token.trim();
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin_with(token, Method::PUT, "/agents/guest", Some(guest)).await.0, 201);
    assert_eq!(server.admin_with(token, Method::GET, "/agents", None).await.0, 200);
    assert_eq!(server.admin_with(&format!("{token}x"), Method::GET, "/agents", None).await.0, 401);
    let trail = server.audit_records("").await;
    let issued = trail.iter().find(|record| record["token"] == decode_claims(token)["jti"]).unwrap();
    assert_eq!((&issued["event"], &issued["client"]), (&json!("token.issue"), &json!("errand-bootstrap")));
    // The token can be revoked like any other.
    server.revoke(json!({"kind": "token", "id": decode_claims(token)["jti"], "reason": "not needed any more"})).await;
    assert_eq!(server.admin_with(token, Method::GET, "/agents", None).await.0, 401);
    let heads = server.open_store().await.list_audit_heads().await.unwrap();
    assert_eq!(heads.len(), 2, "one chain of the server, and one of all commands on this host");
    server.stop().await;
}

async fn audit_verify_and_export_work(server: Server) {
    let claims = decode_claims(&server.task_token().await);
    let folder = std::sync::Arc::clone(&server.folder);
    let folder = folder.path();
    let store = server.stop().await;
    let config = ["--config", "errand.toml"];
    let run = async |command: &[&str]| errand(folder, &[command, &config].concat()).await;
    let (code, out, err) = run(&["audit", "verify"]).await;
    assert!(code == 0 && out.contains("no tampering detected") && out.contains("are not covered"), "{out} {err}");
    let (code, kept, err) = run(&["audit", "checkpoint"]).await;
    assert_eq!(code, 0, "{err}");
    std::fs::write(folder.join("kept"), &kept).unwrap();
    let (code, out, err) = run(&["audit", "verify", "--checkpoint", "kept"]).await;
    assert!(code == 0 && out.contains("checkpoints: 1") && out.contains("no tampering detected"), "{out} {err}");
    let (code, keys, err) = run(&["audit", "keys"]).await;
    assert_eq!(code, 0, "{err}");
    std::fs::write(folder.join("keys"), &keys).unwrap();
    let (code, export, err) = run(&["audit", "export"]).await;
    assert_eq!(code, 0, "{err}");
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    assert!(lines.first().unwrap()["checkpoint"] == kept.trim() && lines.last().unwrap()["checkpoint"].is_string());
    let is_named = |line: &&Value| {
        line["record"]["body"].as_str().is_some_and(|body| body.contains(claims["jti"].as_str().unwrap()))
    };
    assert!(lines.iter().any(|line| is_named(&line)), "{export}");

    // An export verifies without configuration, database or key-encryption key.
    let apart = tempfile::tempdir().unwrap();
    for file in ["kept", "keys"] {
        std::fs::copy(folder.join(file), apart.path().join(file)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/audit/verify_export.py");
    let verify = async |text: &str| {
        std::fs::write(apart.path().join("export"), text).unwrap();
        let arguments = ["audit", "verify", "--export", "export", "--keys", "keys", "--checkpoint", "kept"];
        let (code, out, err) = errand(apart.path(), &arguments).await;
        let mut python = Command::new("python3");
        python.arg(&script).arg("keys").arg("export").current_dir(apart.path());
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || python.output()).await.unwrap().unwrap();
        let both = format!("{out}\n{err}\n{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        (code, status.code().unwrap(), both)
    };
    let (code, python, out) = verify(&export).await;
    assert!((code, python) == (0, 0) && out.contains("no tampering detected") && out.contains("intact"), "{out}");
    let (code, out, err) = errand(apart.path(), &["audit", "verify", "--checkpoint", "kept", "--keys", "keys"]).await;
    assert!(code == 0 && out.starts_with("checkpoint 1 of http"), "{out} {err}");
    let lines = export.lines().collect::<Vec<_>>();
    let last = lines.len() - 1;
    let without =
        |n: usize| lines.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, line)| *line).collect::<Vec<_>>();
    let mut reordered = lines.clone();
    reordered.swap(1, 2);
    let forged = with_forged_signature(&lines, last);
    for (name, changed) in [
        ("an edited text", export.replacen("token.issue", "revocation", 1)),
        ("an edited personal value", export.replacen("quarterly", "hourly", 1)),
        ("a removed record", without(1).join("\n")),
        ("a removed end", without(last - 1).join("\n")),
        ("a removed checkpoint", without(0).join("\n")),
        ("a removed last checkpoint", without(last).join("\n")),
        ("reordered records", reordered.join("\n")),
        ("a removed chain", [lines[0], lines[last]].join("\n")),
        ("a forged checkpoint", forged),
    ] {
        assert_ne!(changed, export, "{name}");
        let (code, python, out) = verify(&changed).await;
        assert_eq!((code, python), (1, 1), "{name}: {out}");
    }
    std::fs::write(apart.path().join("export"), "x\n").unwrap();
    let (code, _, err) = errand(apart.path(), &["audit", "verify", "--export", "export", "--keys", "keys"]).await;
    assert!(code == 1 && err.contains("line 1 is not a line of an export"), "{err}");
    let (code, _, err) = errand(apart.path(), &["audit", "verify"]).await;
    assert!(code == 1 && err.contains("nothing to verify; name a server"), "{err}");

    let edit = "UPDATE audit SET personal = replace(personal, 'quarterly', 'hourly') WHERE task IS NOT NULL";
    assert_eq!(store.tamper(edit).await, 1);
    let (code, out, err) = run(&["audit", "verify"]).await;
    assert!(code == 1 && err.contains("tampering detected"), "{out} {err}");
}

/// Exports the audit trail, and verifies the export.
async fn export(application: &Application, cx: &RequestContext) -> (String, VerifiedExport) {
    let keys = application.service.checkpoint_jwks();
    let mut verification = OfflineVerification::new(|text: &str| verify_checkpoint(&keys, text), &[]);
    let mut text = String::new();
    let exported = application.service.export_audit(cx, |line: &ExportLine| {
        verification.add(line);
        text += &(serde_json::to_string(line).unwrap() + "\n");
        true
    });
    exported.await.unwrap();
    (text, verification.finish_complete().unwrap())
}

/// Returns a context this many hours from now.
fn hours_later(hours: u32) -> (Timestamp, RequestContext) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = Timestamp::from_unix(i64::try_from(now).unwrap());
    (now, RequestContext::internal("later".parse().unwrap(), now.saturating_add(Lifetime::hours(hours))))
}

async fn pruned_trail_verifies(server: Server) {
    server.task_token().await;
    let (folder, config) = (std::sync::Arc::clone(&server.folder), std::sync::Arc::clone(&server.config));
    let folder = folder.path();
    let store = server.stop().await;
    let config_option = ["--config", "errand.toml"];
    let run = async |command: &[&str]| errand(folder, &[command, &config_option].concat()).await;
    for (file, command) in [("keys", "keys"), ("kept", "checkpoint"), ("export", "export")] {
        let (code, out, err) = run(&["audit", command]).await;
        assert_eq!(code, 0, "{err}");
        std::fs::write(folder.join(file), out).unwrap();
    }
    // The command refuses what is too recent, and shows the effect of the rest.
    let prune = async |before: &str| run(&["audit", "prune", "--before", before, "--export", "export"]).await;
    let (code, out, err) = prune("2999-01-01T00:00:00Z").await;
    assert!(code == 1 && err.contains("at least 25 hours ago"), "{out} {err}");
    let (code, out, err) = prune("yesterday").await;
    assert!(code == 1 && err.contains("a time of RFC 3339"), "{out} {err}");
    let (code, out, err) = prune("2020-01-01T00:00:00Z").await;
    assert!(code == 0 && out.contains("0 records in 0 chains") && out.contains("nothing was deleted"), "{out} {err}");
    std::fs::write(folder.join("cut"), std::fs::read_to_string(folder.join("export")).unwrap().lines().next().unwrap())
        .unwrap();
    let (code, _, err) = run(&["audit", "prune", "--before", "2020-01-01T00:00:00Z", "--export", "cut"]).await;
    assert!(code == 1 && err.contains("not a complete export"), "{err}");

    let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
    let (now, later) = hours_later(27);
    let (_, today) = hours_later(0);
    let before = now.saturating_add(Lifetime::minutes(30));
    let (_, recent) = export(&application, &today).await;
    let refused = application.service.plan_prune(before, &recent, &later).await.unwrap_err();
    assert!(matches!(refused, PruneError::NotExported), "{refused}");
    let (before_prune, exported) = export(&application, &later).await;
    let plan = application.service.plan_prune(before, &exported, &later).await.unwrap();
    assert!(plan.records > 3 && plan.chains > 1, "{plan:?}");
    let deleted = application.service.prune_audit(&plan, "admin:command-line", &later).await.unwrap();
    assert_eq!(deleted, plan.records);
    let again = application.service.plan_prune(before, &exported, &later).await.unwrap();
    assert_eq!((again.records, application.service.prune_audit(&again, "x", &later).await.unwrap()), (0, 0));
    application.service.shutdown().await;

    // What is left verifies, with checkpoints from before too.
    let (code, out, err) = run(&["audit", "verify", "--checkpoint", "kept"]).await;
    assert!(code == 0 && out.contains("no tampering detected") && out.contains("records 1 to"), "{out} {err}");
    assert!(out.contains(&format!("{} records were pruned, as a signed checkpoint states", plan.records)), "{out}");
    let (code, after, err) = run(&["audit", "export"]).await;
    assert!(code == 0 && after.contains("audit.prune") && !after.contains("quarterly"), "{after} {err}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/audit/verify_export.py");
    let verify = async |text: &str| {
        std::fs::write(folder.join("export"), text).unwrap();
        let arguments = ["audit", "verify", "--export", "export", "--keys", "keys", "--checkpoint", "kept"];
        let (code, out, err) = errand(folder, &arguments).await;
        let mut python = Command::new("python3");
        python.arg(&script).arg("keys").arg("export").current_dir(folder);
        let output = tokio::task::spawn_blocking(move || python.output()).await.unwrap().unwrap();
        (code, output.status.code().unwrap(), format!("{out} {err} {}", String::from_utf8_lossy(&output.stderr)))
    };
    for (name, text) in [("before", &before_prune), ("after", &after)] {
        let (code, python, out) = verify(text).await;
        assert_eq!((code, python), (0, 0), "{name}: {out}");
    }
    // A record that went otherwise is missing, in the export and in the store.
    let lines = after.lines().collect::<Vec<_>>();
    let first_record = lines.iter().position(|line| line.starts_with("{\"record\"")).unwrap();
    let without = |n: usize| [&lines[..n], &lines[n + 1..]].concat().join("\n");
    let (code, python, out) = verify(&without(first_record)).await;
    assert_eq!((code, python), (1, 1), "{out}");
    assert_eq!(store.tamper("DELETE FROM audit WHERE event = 'audit.prune'").await, 1);
    let (code, out, err) = run(&["audit", "verify"]).await;
    assert!(code == 1 && out.contains("records were deleted from its end"), "{out} {err}");
}

async fn forgotten_person_is_nowhere(server: Server) {
    let claims = decode_claims(&server.task_token().await);
    let (issuer, subject) = (claims["sub_iss"].as_str(), claims["sub"].as_str().unwrap());
    let issuer = issuer.unwrap_or(crate::server::IDP);
    let (folder, config) = (std::sync::Arc::clone(&server.folder), std::sync::Arc::clone(&server.config));
    let folder = folder.path();
    let store = server.stop().await;
    let run = async |command: &[&str]| errand(folder, &[command, &["--config", "errand.toml"]].concat()).await;
    let forget = ["forget-person", "--issuer", issuer, "--subject", subject];
    let (code, out, err) = run(&forget).await;
    assert!(code == 0 && out.contains("nothing was removed") && !out.starts_with("0 values"), "{out} {err}");
    let personal = format!("SELECT 1 FROM audit WHERE personal LIKE '%{subject}%'");
    assert!(store.tamper(&format!("UPDATE audit SET n = n WHERE EXISTS ({personal})")).await > 0);
    let (code, out, err) = run(&[&forget[..], &["--yes"]].concat()).await;
    assert!(
        code == 0 && out.contains("1 records of tokens, 1 tasks") && out.contains("repeat the command"),
        "{out} {err}"
    );
    for column in ["personal", "requester_subject", "resource"] {
        let update = format!("UPDATE audit SET n = n WHERE {column} LIKE '%{subject}%'");
        assert_eq!(store.tamper(&update).await, 0, "{column}");
    }
    let (code, out, err) = run(&["audit", "verify"]).await;
    assert!(code == 0 && out.contains("personal values were removed"), "{out} {err}");
    let (_, export, _) = run(&["audit", "export"]).await;
    assert!(export.contains("person.forget") && !export.contains(subject) && !export.contains("quarterly"), "{export}");

    // Rows follow when everything about them has ended.
    let application = Application::build(&config, MigrationPolicy::Always).await.unwrap();
    let (_, later) = hours_later(60);
    application.service.collect_garbage(&later).await.unwrap();
    let person =
        errand::domain::requester::Requester { issuer: issuer.parse().unwrap(), subject: subject.parse().unwrap() };
    let report = application.service.forget_person(&person, "admin:command-line", false, &later).await.unwrap();
    assert_eq!((report.deleted.tokens, report.deleted.tasks), (1, 1), "{report:?}");
    assert_eq!(report.left, errand::ports::RequesterRows::default());
    for table in ["tokens", "tasks"] {
        let update = format!("UPDATE {table} SET rev = rev WHERE requester_subject = '{subject}'");
        assert_eq!(store.tamper(&update).await, 0, "{table}");
    }
    application.service.shutdown().await;
}

/// Returns the export with another signature of its last checkpoint.
fn with_forged_signature(lines: &[&str], last: usize) -> String {
    let (signed, signature) = lines[last].rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    [&lines[..last], &[forged.as_str()]].concat().join("\n")
}

async fn token_commands_work(server: Server) {
    let folder = server.folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("user-token", &server.user_token(json!({})));
    write("planner.key", &server.planner.private());
    let client = ["--server", &server.issuer, "--client", "planner", "--key-file", "planner.key"];
    let exchange = ["token", "exchange", "--subject-token-file", "user-token", "--resource", crate::server::FILES];
    let parameters = ["--scope", "files:read", "--purpose", "from a terminal"];
    let (code, out, err) = errand(folder, &[&exchange[..], &client, &parameters, &["--bare"]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let token = out.trim();
    assert!(server.is_active(token).await);
    assert_eq!(decode_claims(token)["tctx"]["purpose"], "from a terminal");
    let (code, out, _) = errand(folder, &[&exchange[..], &client, &parameters].concat()).await;
    assert!(code == 0 && out.contains("\"sub\": \"alice\""), "{out}");
    let (code, out, err) =
        errand(folder, &[&exchange[..], &client, &["--scope", "files:delete", "--purpose", "x"]].concat()).await;
    assert!(code == 1 && out.is_empty() && err.contains("invalid_scope"), "{err}");

    write("token", token);
    // A trailing slash in the URL is accepted, even for an assertion. A resource can be given by
    // name.
    let slash = format!("{}/", server.issuer);
    let client_with_slash = ["--server", &slash, "--client", "planner", "--key-file", "planner.key"];
    let named = ["token", "exchange", "--subject-token-file", "user-token", "--audience", "files"];
    let deadline = ["--task-deadline", "600", "--bare"];
    let (code, out, err) = errand(folder, &[&named[..], &client_with_slash, &parameters, &deadline].concat()).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(decode_claims(out.trim())["aud"], crate::server::FILES);
    let files = ["--server", &server.issuer, "--client", "files", "--secret-file", "files.secret"];
    let txn = ["--txn", "--audience", "example.com", "--scope", "files:read", "--request-context", r#"{"a":"b"}"#];
    let txn = [&["token", "exchange", "--subject-token-file", "token", "--bare"][..], &files, &txn].concat();
    let (code, out, err) = errand(folder, &txn).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(decode_claims(out.trim())["rctx"]["a"], "b");
    let files =
        ["--server", &server.issuer, "--client", "files", "--secret-file", "files.secret", "--token-file", "token"];
    let (code, out, err) = errand(folder, &[&["token", "introspect"][..], &files].concat()).await;
    assert!(code == 0 && out.contains("\"active\": true"), "{out} {err}");
    let (code, _, err) =
        errand(folder, &[&["token", "revoke"][..], &client, &["--token-file", "token"]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = errand(folder, &[&["token", "introspect"][..], &files].concat()).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, json!({"active": false})));
    write("wrong.secret", &secret("notes"));
    let wrong =
        ["--server", &server.issuer, "--client", "files", "--secret-file", "wrong.secret", "--token-file", "token"];
    let (code, _, err) = errand(folder, &[&["token", "introspect"][..], &wrong].concat()).await;
    assert!(code == 1 && err.contains("invalid_client") && !err.contains(&secret("notes")), "{err}");
    server.stop().await;
}

/// A requester and an agent choose the subject and the purpose, which an admin reads in a terminal.
async fn printed_text_has_no_invisible_characters(server: Server) {
    let (subject, purpose) = ("ali\u{202e}ce\u{200b}", "a \u{2066}report\u{2069}\u{feff}\u{e0041}");
    let user = server.user_token(json!({"sub": subject}));
    let form = form_with_changes(&server.exchange_form(&user), &[("purpose", purpose)]);
    let token = decode_claims(&server.issue_token("planner", &form).await);
    assert_eq!((&token["sub"], &token["tctx"]["purpose"]), (&json!(subject), &json!(purpose)));
    let (folder, task) = (server.folder.path(), token["txn"].as_str().unwrap());
    let is_invisible = |c: char| {
        let ranges = ['\u{ad}'..='\u{ad}', '\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}'];
        let more = ['\u{feff}'..='\u{feff}', '\u{e0000}'..='\u{e0fff}'];
        c != '\n' && c.is_control() || ranges.iter().chain(&more).any(|range| range.contains(&c))
    };
    for arguments in [&["task", "trail", task][..], &["audit", "export"], &["task", "trail", subject]] {
        let (_, out, err) = errand(folder, &[arguments, &["--config", "errand.toml"]].concat()).await;
        assert!(!out.contains(is_invisible) && !err.contains(is_invisible), "{arguments:?} {}", out.escape_debug());
        if arguments[0] == "audit" {
            assert!(out.contains(r"ali\u202ece\u200b") && out.contains(r"\udb40\udc41"), "{out}");
            let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
            assert!(json!(records).to_string().contains(purpose), "the export is the same JSON");
        }
    }
    server.stop().await;
}

async fn serve_stops_on_signal(server: Server) {
    let (issuer, folder) = (server.issuer.clone(), std::sync::Arc::clone(&server.folder));
    let token = server.task_token().await;
    let user = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
    let http = server.http.clone();
    let _store = server.stop().await;
    for signal in ["TERM", "INT"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_errand"))
            .args(["serve", "--config", "errand.toml"])
            .current_dir(folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
        let ready = || async { http.get(format!("{issuer}/readyz")).send().await.is_ok_and(|a| a.status() == 200) };
        wait_until("the server is ready", ready).await;
        #[cfg(target_os = "linux")]
        {
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        }
        let post = |path: &str, client: &str, form: &crate::server::Form| {
            http.post(format!("{issuer}{path}")).basic_auth(client, Some(secret(client))).form(form).send()
        };
        let answer = post("/oauth2/introspect", "files", &form(&[("token", &token)])).await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["active"], true, "a token survives a restart");
        assert_eq!(post("/oauth2/token", "reader", &user).await.unwrap().status(), 200);
        let kill = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        let log = log.join().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains("listening") && log.contains("stopped"), "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "each line is JSON: {log}");
        assert!(!log.contains(&token) && !log.contains(&secret("reader")), "the log contains a secret");
    }
}

/// Starts `errand serve` and a thread that collects its log.
fn spawn_serve(folder: &Path, options: &[&str]) -> (std::process::Child, std::sync::Arc<std::sync::Mutex<String>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_errand"))
        .args([&["serve", "errand.toml"][..], options].concat())
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::sync::Arc::<std::sync::Mutex<String>>::default();
    let (lines, sink) = (child.stderr.take().unwrap(), std::sync::Arc::clone(&log));
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(lines)).map_while(Result::ok) {
            let mut sink = sink.lock().unwrap();
            sink.push_str(&line);
            sink.push('\n');
        }
    });
    (child, log)
}

fn send_signal(child: &std::process::Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

async fn serve_reloads_on_hangup_and_on_command(server: Server) {
    let (folder, token) = (std::sync::Arc::clone(&server.folder), server.task_token().await);
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(folder.path().join("errand.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(folder.path().join("errand.toml"), text.replace(from, to)).unwrap();
    };
    // A second replica shares the file; its address and its name come from the command line.
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (mut child, log) =
        spawn_serve(folder.path(), &["--listen", &listen, "--operations-listen", &listen, "--replica-name", "second"]);
    let logged = |text: &str| log.lock().unwrap().contains(text);
    let http = server.http.clone();
    let ready = || async { http.get(format!("http://{listen}/readyz")).send().await.is_ok_and(|a| a.status() == 200) };
    wait_until("the second replica is ready", ready).await;
    let replicas = async || server.admin(Method::GET, "/replicas", None).await.1.to_string();
    wait_until("the second replica is registered", || async { replicas().await.contains("\"second\"") }).await;

    // The registry, the log level and the limits change at once. The queue needs a restart.
    edit("id = \"stranger\"", "id = \"visitor\"");
    edit(
        "[store]",
        "[tokens]\nlifetime = 17\n\n[log]\nlevel = \"info,errand=debug\"\n\n[requests]\nwrite_queue = 99\n\n[store]",
    );
    send_signal(&child, "HUP");
    wait_until("the reload is logged", || async { logged("take effect after a restart only") }).await;
    assert!(logged("requests") && logged("add agent visitor"), "{}", log.lock().unwrap());
    assert_eq!(server.admin(Method::GET, "/agents/visitor", None).await.0, 200);
    let exchange = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
    let expires_in = async || {
        let request = http.post(format!("http://{listen}/oauth2/token")).basic_auth("reader", Some(secret("reader")));
        let answer = request.form(&exchange).send().await.unwrap().json::<Value>().await.unwrap();
        answer["expires_in"].clone()
    };
    assert_eq!(expires_in().await, 17);
    // A successful introspection is logged at this level.
    let introspect = async || {
        let request =
            http.post(format!("http://{listen}/oauth2/introspect")).basic_auth("files", Some(secret("files")));
        let answer = request.form(&form(&[("token", &token)])).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    wait_until("the debug level is in force", || async {
        introspect().await;
        logged("\"DEBUG\"")
    })
    .await;
    wait_until("the other replicas see it", || async {
        replicas().await.contains("\"pending_restart\":[\"requests\"]")
    })
    .await;

    // A file with an error, and one that would end the task, change nothing and stop nothing.
    edit("id = \"visitor\"", "id = \"visitor \"");
    send_signal(&child, "HUP");
    wait_until("the error is logged", || async { logged("configuration not reloaded") }).await;
    edit("id = \"visitor \"", "id = \"visitor\"");
    edit("id = \"planner\"", "id = \"planner-2\"");
    send_signal(&child, "HUP");
    wait_until("the refusal is logged", || async { logged("--accept-ending 1") }).await;
    assert!(server.is_active(&token).await);
    assert!(ready().await);

    // The command reaches every replica.
    edit("lifetime = 17", "lifetime = 18");
    let (code, out, err) = errand(folder.path(), &["config", "reload", "errand.toml", "--accept-ending", "1"]).await;
    assert_eq!(code, 0, "{out} {err}");
    wait_until("the command reloads the replica", || async { expires_in().await == 18 }).await;
    send_signal(&child, "TERM");
    assert_eq!(tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().code(), Some(0));
    server.stop().await;
}

async fn serve_without_its_address_writes_nothing(server: Server) {
    // The server of this test has the address.
    let text = std::fs::read_to_string(server.config_file()).unwrap();
    std::fs::write(server.config_file(), text.replace("id = \"stranger\"", "id = \"visitor\"")).unwrap();
    let (code, _, err) = errand(server.folder.path(), &["serve", "errand.toml"]).await;
    assert!(code == 1 && err.contains("`listen`"), "{err}");
    assert_eq!(server.admin(Method::GET, "/agents/visitor", None).await.0, 404, "nothing was applied");
    server.stop().await;
}

#[tokio::test]
async fn help_of_help_is_help() {
    let folder = tempfile::tempdir().unwrap();
    let (_, text, _) = errand(folder.path(), &["help"]).await;
    for form in [&["help", "--help"][..], &["help", "-h"], &["--help"]] {
        let (code, out, err) = errand(folder.path(), form).await;
        assert!(code == 0 && out.contains("check-config"), "{form:?}: {out} {err}");
    }
    assert!(text.contains("check-config"));
    let (code, out, err) = errand(folder.path(), &["keys", "help", "--help"]).await;
    assert!(code == 0 && out.contains("revoke"), "{out} {err}");
    let (code, out, err) = errand(folder.path(), &["help", "keys", "--help"]).await;
    assert!(code == 0 && out.contains("revoke"), "{out} {err}");
}

#[tokio::test]
async fn strict_check_fails_on_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("errand.example.toml"), folder.path().join("errand.toml")).unwrap();
    let mut script = Command::new(root.join("deploy/example-secrets"));
    assert!(script.arg(folder.path()).env("ERRAND_STORE_URL", "sqlite:errand.db").output().unwrap().status.success());
    let text = std::fs::read_to_string(folder.path().join("errand.toml")).unwrap();
    let edited = text.replacen("#address = \"127.0.0.1:8080\"", "address = \"0.0.0.0:8080\"", 1);
    assert_ne!(text, edited);
    std::fs::write(folder.path().join("errand.toml"), edited).unwrap();
    let (code, out, err) = errand(folder.path(), &["check-config", "errand.toml"]).await;
    assert!(code == 0 && out.contains("valid, with "), "{out} {err}");
    let (code, _, err) = errand(folder.path(), &["check-config", "--strict", "errand.toml"]).await;
    assert!(code == 1 && err.contains("valid, with "), "{err}");
}

async fn migrate_works(store: TestStore) {
    let folder = tempfile::tempdir().unwrap();
    let private = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("url", store.url());
    private("kek", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let text = "issuer = \"http://127.0.0.1:1\"\ntrust_domain = \"example.com\"\n[store]\nurl_file = \"url\"\n[keys]\nencryption_key_file = \"kek\"\n";
    private("errand.toml", text);
    let config = ["--config", "errand.toml"];
    if store.url().starts_with("postgres") {
        let (code, _, err) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
        assert!(code == 1 && err.contains("errand migrate"), "the error names the remedy: {err}");
        let (code, _, err) = errand(folder.path(), &[&["serve"][..], &config].concat()).await;
        assert!(code == 1 && err.contains("errand migrate"), "the error names the remedy: {err}");
    }
    for _ in 0..2 {
        let (code, out, err) = errand(folder.path(), &[&["migrate"][..], &config].concat()).await;
        assert!(code == 0 && out.contains("schema"), "{out} {err}");
    }
    let (code, list, err) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
    assert!(code == 0 && list.contains("no keys yet"), "{list} {err}");
    // The first command has created the keys of the store.
    private("other", "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgMTI=");
    private("errand.toml", &text.replace("\"kek\"", "\"other\""));
    let (code, _, err) = errand(folder.path(), &[&["keys", "rotate"][..], &config].concat()).await;
    assert!(code == 1 && err.contains("is not configured; name its file in `encryption_key_file`"), "{err}");
    private("errand.toml", text);
    let (code, _, err) = errand(folder.path(), &[&["keys", "rotate"][..], &config].concat()).await;
    assert_eq!(code, 0, "{err}");
    let both = text.replace("\"kek\"", "\"other\"\nprevious_encryption_key_files = [\"kek\"]");
    private("errand.toml", &both);
    for (command, want) in [("list", "ES256 active"), ("rekey", "encrypted 5 stored keys"), ("rekey", "nothing to do")]
    {
        let (code, out, err) = errand(folder.path(), &[&["keys", command][..], &config].concat()).await;
        assert!(code == 0 && out.contains(want), "{out} {err}");
    }
    private("errand.toml", &text.replace("\"kek\"", "\"other\""));
    let (code, out, err) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
    assert!(code == 0 && out.contains("ES256 active"), "{out} {err}");
    // A store that has been used does not get new keys in place of missing ones.
    store.tamper("DELETE FROM sealed_keys WHERE purpose = 'audit_records'").await;
    let (code, _, err) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
    assert!(code == 1 && err.contains("no sealed key `audit_records` is stored; restore"), "{err}");
    store.tamper("DELETE FROM sealed_keys").await;
    let (code, _, err) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
    assert!(code == 1 && err.contains("the store has been used, but has no row in its table `sealed_keys`"), "{err}");
}

/// Runs the commands of README.md with the example, before the first start of a server creates a
/// key.
async fn example_config_works(store: TestStore) {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("errand.example.toml"), folder.path().join("errand.example.toml")).unwrap();
    for _ in 0..2 {
        let mut script = Command::new(root.join("deploy/example-secrets"));
        let output = script.arg(folder.path()).env("ERRAND_STORE_URL", store.url()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let config = ["--config", "errand.example.toml"];
    let (code, out, err) = errand(folder.path(), &["check-config", "errand.example.toml"]).await;
    assert!(code == 0 && out.contains("errand.example.toml: valid"), "{err}");
    let (code, _, err) = errand(folder.path(), &[&["migrate"][..], &config].concat()).await;
    assert_eq!(code, 0, "{err}");
    let (code, token, err) = errand(folder.path(), &[&["admin", "token"][..], &config].concat()).await;
    assert_eq!((code, &decode_claims(token.trim())["iss"]), (0, &json!("https://sts.example.com")), "{err}");
    let (_, list, _) = errand(folder.path(), &[&["keys", "list"][..], &config].concat()).await;
    assert!(list.lines().count() == 1 && list.contains("ES256 active"), "{list}");
}

#[tokio::test]
async fn example_config_works_on_sqlite() {
    example_config_works(TestStore::empty_sqlite().await).await;
}

#[tokio::test]
async fn example_config_works_on_postgres() {
    example_config_works(TestStore::empty_postgres().await).await;
}

#[tokio::test]
async fn unreachable_postgres_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    std::fs::write(&kek, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    std::fs::set_permissions(&kek, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = "issuer = \"http://127.0.0.1:1\"\ntrust_domain = \"x\"\nstore.url = \"postgres://errand@127.0.0.1:1/books\"\nkeys.encryption_key_file = \"kek\"\n";
    std::fs::write(folder.path().join("errand.toml"), text).unwrap();
    for command in [&["serve"][..], &["migrate"], &["keys", "list"]] {
        let (code, _, err) = errand(folder.path(), &[command, &["--config", "errand.toml"]].concat()).await;
        assert!(code == 1 && err.contains("127.0.0.1:1, database `books`") && err.contains("refused"), "{err}");
    }
}

#[tokio::test]
async fn closed_pipe_is_not_an_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_errand"))
        .args(["check-config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/no-such-file.toml")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1), "a closed pipe does not hide an error");
}

#[tokio::test]
async fn commands_work_beside_dev_server() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_errand"))
        .args(["serve", "--dev", "--listen", &port.to_string()])
        .current_dir(folder.path())
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut output = String::new();
    while !output.contains("introspect --token-file errand-dev/reader.token") {
        assert!(std::io::BufRead::read_line(&mut log, &mut output).unwrap() > 0, "{output}");
    }
    assert!(output.contains(&format!("export ERRAND_SERVER=http://{port}\n")), "{output}");

    // Operator commands work next to the server, at its address.
    let (code, token, err) = errand(folder.path(), &["admin", "token", "--dev"]).await;
    assert_eq!((code, &decode_claims(token.trim())["iss"]), (0, &json!(format!("http://{port}"))), "{err}");
    for command in [&["keys", "list", "--dev"][..], &["audit", "verify", "--dev"], &["keys", "rotate", "--dev"]] {
        let (code, out, err) = errand(folder.path(), command).await;
        assert!(code == 0 && !out.is_empty(), "{command:?}: {err}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_errand"))
        .args(["audit", "export", "--dev"])
        .current_dir(folder.path())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr.as_slice()), (Some(0), &b""[..]), "a closed pipe is not an error");
    server.kill().unwrap();
    server.wait().unwrap();
    let (code, _, err) = errand(tempfile::tempdir().unwrap().path(), &["keys", "list", "--dev"]).await;
    assert!(code == 1 && err.contains("errand serve --dev"), "{err}");
}

/// `errand serve --dev` prints the commands of the README.
#[test]
fn readme_contains_the_quickstart_script() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(include_str!("../../src/cli/quickstart.sh")), "README.md and src/cli/quickstart.sh differ");
}

#[tokio::test]
async fn migrate_works_on_sqlite() {
    migrate_works(TestStore::empty_sqlite().await).await;
}

#[tokio::test]
async fn migrate_works_on_postgres() {
    migrate_works(TestStore::empty_postgres().await).await;
}

#[tokio::test]
async fn dev_server_refuses_non_loopback_address() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let (code, out, err) = errand(folder.path(), &["serve", "--dev", "--listen", address]).await;
        assert!(code == 1 && out.is_empty() && err.contains("loopback"), "{address}: {err}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a rejected address created files");
    // `--dev` excludes `--config`, and what belongs to a file.
    assert_eq!(errand(folder.path(), &["serve"]).await.0, 2);
    assert_eq!(errand(folder.path(), &["serve", "--dev", "--config", "x"]).await.0, 2);
    assert_eq!(errand(folder.path(), &["serve", "--dev", "x"]).await.0, 2);
    assert_eq!(errand(folder.path(), &["serve", "--dev", "--replica-name", "x"]).await.0, 2);
    assert_eq!(errand(folder.path(), &["serve", "x", "--replica-name", ""]).await.0, 2);
    for form in [&["serve", "x"][..], &["serve", "--config", "x", "--listen", "127.0.0.1:0"]] {
        assert_eq!(errand(folder.path(), form).await.0, 1, "both forms name a file: {form:?}");
    }
}
