//! `errand serve --dev`: a server with demo objects and no file, for this machine only. What it needs is made at its
//! first start and kept, so that tokens and the database outlive a restart.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{Config, ConfigError, ConfigErrors};
use crate::{
    adapters::dev_idp,
    domain::encode_base64url,
    ports::{Entropy, Outage},
};

/// Where the server listens when nobody says otherwise.
pub const DEV_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// The folder with the keys and secrets of a server for development in `dir`.
#[must_use]
pub fn dev_folder(dir: &Path) -> PathBuf {
    dir.join("errand-dev")
}

/// Where the server for development in `dir` listened when it was last started.
#[must_use]
pub fn dev_address(dir: &Path) -> Option<SocketAddr> {
    let server = fs::read_to_string(dev_folder(dir).join(dev_idp::SERVER_FILE)).ok()?;
    server.trim().strip_prefix("http://")?.parse().ok()
}

impl Config {
    /// The configuration for development in `dir`, at a loopback address.
    pub fn dev(dir: &Path, listen: SocketAddr, entropy: &dyn Entropy) -> Result<Self, ConfigErrors> {
        if !listen.ip().is_loopback() || listen.port() == 0 {
            let reason = format!("`{listen}` is not a loopback address with a port");
            return Err(config_error(
                "listen",
                reason,
                "--dev is for this machine only: write a configuration file for others",
            )
            .into());
        }
        let folder = dev_folder(dir);
        write_demo_files(&folder, listen, entropy).map_err(|fault| {
            let reason = format!("{} can't be made: {}: {}", folder.display(), fault.operation, fault.source);
            config_error("errand-dev", reason, "start it where files can be made")
        })?;
        let text = include_str!("dev.toml").replace("ERRAND", &listen.to_string());
        Self::parse("--dev", dir, &text, &|_| None)
    }
}

fn config_error(key: &str, reason: String, remedy: &str) -> ConfigError {
    ConfigError { file: "--dev".to_owned(), position: None, key: key.to_owned(), reason, remedy: remedy.to_owned() }
}

/// Makes what is missing. What is there is kept, the name of the identity provider excepted: it has the address in it.
fn write_demo_files(folder: &Path, listen: SocketAddr, entropy: &dyn Entropy) -> Result<(), Outage> {
    create_folder(folder).map_err(Outage::during("make the folder"))?;
    let keep = |name: &str, make: &dyn Fn() -> Result<Zeroizing<String>, Outage>| {
        let path = folder.join(name);
        if path.exists() {
            return Ok(());
        }
        write_file(&path, &make()?).map_err(Outage::during("write a file"))
    };
    keep("encryption.key", &|| Ok(Zeroizing::new(STANDARD.encode(entropy.random_bytes32()?))))?;
    for client in ["planner", "reader", "files", "ops", "audit"] {
        keep(&format!("{client}.secret"), &|| Ok(Zeroizing::new(encode_base64url(&entropy.random_bytes32()?))))?;
    }
    keep(dev_idp::PRIVATE_KEY_FILE, &dev_idp::generate_key)?;
    let private = fs::read_to_string(folder.join(dev_idp::PRIVATE_KEY_FILE)).map_err(Outage::during("read the key"))?;
    let private = Zeroizing::new(private);
    write_file(&folder.join("idp.jwks.json"), &dev_idp::public_jwks(&private)?)
        .map_err(Outage::during("write a file"))?;
    write_file(&folder.join(dev_idp::SERVER_FILE), &format!("http://{listen}")).map_err(Outage::during("write a file"))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let half = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&half)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(half, path)
}
