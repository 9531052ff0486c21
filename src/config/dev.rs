//! Configuration of `errand serve --dev`: demo objects, without a configuration file, for this
//! machine only. The first start creates the keys and secrets; later starts keep them, so that
//! tokens and the database survive a restart.

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
    ports::{Entropy, ErrorChain, Outage},
};

/// Default address of the public listener.
pub const DEV_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// Returns the folder with the keys and secrets of the development server in `dir`.
#[must_use]
pub fn dev_folder(dir: &Path) -> PathBuf {
    dir.join("errand-dev")
}

/// Returns the address of the development server in `dir` at its last start.
#[must_use]
pub fn dev_address(dir: &Path) -> Option<SocketAddr> {
    let server = fs::read_to_string(dev_folder(dir).join(dev_idp::SERVER_FILE)).ok()?;
    server.trim().strip_prefix("http://")?.parse().ok()
}

impl Config {
    /// Creates the development configuration in `dir`, at a loopback address.
    pub fn dev(dir: &Path, listen: SocketAddr, entropy: &dyn Entropy) -> Result<Self, ConfigErrors> {
        if !listen.ip().is_loopback() || listen.port() == 0 {
            let reason = format!("`{listen}` is not a loopback address with a port");
            let remedy = "--dev serves this machine only; write a configuration file to serve others";
            return Err(config_error("listen", reason, remedy).into());
        }
        let folder = dev_folder(dir);
        write_demo_files(&folder, listen, entropy).map_err(|outage| {
            let reason = format!("can't create {}: {}", folder.display(), ErrorChain(&outage));
            config_error("errand-dev", reason, "run the command in a writable directory")
        })?;
        let text = include_str!("dev.toml").replace("ERRAND", &listen.to_string());
        Self::parse("--dev", dir, &text, &|_| None)
    }
}

fn config_error(key: &str, reason: String, remedy: &str) -> ConfigError {
    ConfigError { file: "--dev".to_owned(), position: None, key: key.to_owned(), reason, remedy: remedy.to_owned() }
}

/// Creates missing files and keeps existing ones, except those that depend on the address.
fn write_demo_files(folder: &Path, listen: SocketAddr, entropy: &dyn Entropy) -> Result<(), Outage> {
    create_folder(folder).map_err(Outage::during("create the folder"))?;
    let create_if_missing = |name: &str, generate: &dyn Fn() -> Result<Zeroizing<String>, Outage>| {
        let path = folder.join(name);
        if path.exists() {
            return Ok(());
        }
        write_file(&path, &generate()?).map_err(Outage::during("write a file"))
    };
    create_if_missing("encryption.key", &|| Ok(Zeroizing::new(STANDARD.encode(entropy.random_bytes32()?))))?;
    for client in ["planner", "reader", "files", "ops", "audit"] {
        create_if_missing(&format!("{client}.secret"), &|| {
            Ok(Zeroizing::new(encode_base64url(&entropy.random_bytes32()?)))
        })?;
    }
    create_if_missing(dev_idp::PRIVATE_KEY_FILE, &dev_idp::generate_key)?;
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

/// Writes a file atomically, readable by its owner only.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
