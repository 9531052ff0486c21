//! A first start while the clock is ahead, with a clock of the operating system.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    machine::{find_program, report_not_run},
    port::ReservedPort,
    wait_until,
};

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the environment in which a program sees a clock that is an hour ahead. The program
/// `faketime` would stay the parent of what it starts, which could then not be stopped.
fn hour_ahead(faketime: &Path) -> Vec<(String, String)> {
    let output = Command::new(faketime).args(["-f", "+1h", "env"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let wanted = variables.filter(|(name, _)| ["LD_PRELOAD", "FAKETIME"].contains(name));
    wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn serve(folder: &Path, environment: Vec<(String, String)>) -> Serving {
    let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
    command.envs(environment);
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.args(["serve", "--config", "errand.toml"]).current_dir(folder);
    Serving(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

async fn readiness(port: u16) -> Option<u16> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.get(format!("http://127.0.0.1:{port}/readyz")).send().await.ok()?;
    Some(response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn key_from_a_clock_ahead_is_repaired_by_rotation() {
    let test = "key_from_a_clock_ahead_is_repaired_by_rotation";
    let Some(faketime) = find_program("faketime") else {
        return report_not_run(test, "faketime is not installed; install the package faketime");
    };
    // reqwest needs a default provider. Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = TempDir::new().unwrap();
    let reserved = ReservedPort::new();
    let port = reserved.address().port();
    let config = format!(
        "issuer = \"http://127.0.0.1:{port}\"\ntrust_domain = \"example.com\"\nlisten = \"127.0.0.1:{port}\"\n\
         operations_listen = \"127.0.0.1:{port}\"\n\
         [store]\nurl = \"sqlite:errand.db\"\n[keys]\nencryption_key_file = \"kek\"\n"
    );
    std::fs::write(folder.path().join("errand.toml"), config).unwrap();
    std::fs::write(folder.path().join("kek"), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("kek"), only_owner).unwrap();
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();

    let mut ahead = serve(folder.path(), hour_ahead(&faketime));
    wait_until("the server with the wrong clock is ready", async || {
        assert!(ahead.0.try_wait().unwrap().is_none(), "the server has ended: {}", log());
        readiness(port).await == Some(200)
    })
    .await;
    drop(ahead);
    let mut correct = serve(folder.path(), Vec::new());
    wait_until("the server listens", async || {
        assert!(correct.0.try_wait().unwrap().is_none(), "the server has ended: {}", log());
        readiness(port).await.is_some()
    })
    .await;
    assert_eq!(readiness(port).await, Some(503), "{}", log());
    assert!(log().contains("key signs before") && log().contains("`errand keys rotate --now`"), "{}", log());

    let mut rotate = Command::new(env!("CARGO_BIN_EXE_errand"));
    rotate.args(["keys", "rotate", "--now", "--config", "errand.toml"]).current_dir(folder.path());
    let rotated = rotate.output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let text = String::from_utf8(rotated.stdout).unwrap();
    assert!(text.contains("signs from now on"), "{text}");
    wait_until("the server is ready", || async { readiness(port).await == Some(200) }).await;
}
