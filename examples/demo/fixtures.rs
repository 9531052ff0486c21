//! Who plays: an identity provider, Errand, an MCP server, two agents, an admin. All on free ports of this machine, their
//! files in a temporary folder that goes with them.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose};
use errand::{
    adapters::system::OsEntropy,
    bootstrap::{Application, BackgroundTasks, MigrationPolicy},
    config::Config,
    domain::secret::Secret,
    http::{AppState, HttpSettings, Listener, router, serve},
    ports::Entropy,
};
use reqwest::{Client, redirect::Policy};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    agent::{Credential, OAuthClient},
    guard::ResourceGuard,
    idp,
    key::Key,
    mcp_server,
    output::BoxError,
};

/// The file that both agents read, and that must not be touched.
pub(crate) const FIGURES: &str = "figures.txt";
pub(crate) const FIGURES_TEXT: &str = "Q1 120, Q2 135, Q3 128, Q4 150";
/// The file that is the planner's alone to read.
pub(crate) const FORECAST: &str = "forecast.txt";
const FORECAST_TEXT: &str = "Q1 155, Q2 161";
/// The file that is nobody's to read.
pub(crate) const SALARIES: &str = "salaries.txt";
const SALARIES_TEXT: &str = "not for agents";

pub(crate) struct Fixtures {
    pub(crate) http: Client,
    /// The identity provider.
    pub(crate) provider: String,
    pub(crate) errand: ErrandServer,
    /// The MCP server.
    pub(crate) mcp: String,
    pub(crate) planner: OAuthClient,
    pub(crate) reader: OAuthClient,
    pub(crate) ops: OAuthClient,
    folder: TempDir,
}

/// Errand, served.
pub(crate) struct ErrandServer {
    pub(crate) url: String,
    application: Application,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    _background_tasks: BackgroundTasks,
}

impl Fixtures {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let folder = tempfile::Builder::new().prefix("errand-demo.").tempdir()?;
        let files = folder.path().join("files");
        std::fs::create_dir(&files)?;
        for (name, text) in [(FIGURES, FIGURES_TEXT), (FORECAST, FORECAST_TEXT), (SALARIES, SALARIES_TEXT)] {
            std::fs::write(files.join(name), text)?;
        }

        let dice = Arc::new(OsEntropy::new()?);
        let planner_key = Key::generate("planner-1")?;
        let secret = |client| Ok::<_, BoxError>((client, Secret::new(random_secret(&dice)?)));
        let secrets: [(&str, Secret); 3] = [secret("reader")?, secret("files")?, secret("ops")?];

        let provider = idp::start().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mcp = format!("http://{}/mcp", listener.local_addr()?);
        let errand = ErrandServer::start(folder.path(), &provider, &mcp, &planner_key, &secrets).await?;

        let http = client()?;
        let [(_, reader), (resource, resource_secret), (_, ops)] = secrets;
        let guard = ResourceGuard {
            http: http.clone(),
            errand: errand.url.clone(),
            client_id: resource.to_owned(),
            client_secret: resource_secret.expose().to_owned(),
            resource: mcp.parse()?,
            scopes: &["files:read", "files:write", "files:delete"],
        };
        mcp_server::start(listener, guard, files.into());
        let party = |id, credential| OAuthClient { id, credential, http: http.clone(), entropy: Arc::clone(&dice) };
        Ok(Self {
            planner: party("planner", Credential::Key(planner_key.private()?)),
            reader: party("reader", Credential::Secret(reader)),
            ops: party("ops", Credential::Secret(ops)),
            http,
            provider,
            errand,
            mcp,
            folder,
        })
    }

    /// What is in the file now: nothing, if it is gone.
    pub(crate) fn figures(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("files").join(FIGURES)).unwrap_or_default()
    }

    /// Ends it all; what was answered is durable.
    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        // An error means that it has stopped already.
        let _: Result<(), ()> = self.errand.stop.send(());
        self.errand.serving.await?;
        self.errand.application.service.shutdown().await;
        Ok(self.folder.close()?)
    }
}

impl ErrandServer {
    /// Starts it as `errand serve` does, from a configuration file, on SQLite and a free port.
    async fn start(
        folder: &Path,
        provider: &str,
        mcp: &str,
        planner: &Key,
        secrets: &[(&str, Secret)],
    ) -> Result<Self, BoxError> {
        let listener = Listener::bind("127.0.0.1:0".parse()?, None).await?;
        let address = listener.local_addr()?.to_string();
        write(folder, "store-url", &format!("sqlite://{}", folder.join("errand.db").display()))?;
        write(folder, "encryption-key", &general_purpose::STANDARD.encode(OsEntropy::new()?.random_bytes32()?))?;
        write(folder, "planner.jwks.json", &planner.public()?.to_string())?;
        for (client, secret) in secrets {
            write(folder, &format!("{client}.secret"), secret.expose())?;
        }
        let text = include_str!("errand.toml");
        let text =
            text.replace("ERRAND", &address).replace("PROVIDER", provider).replace("\"MCP\"", &format!("\"{mcp}\""));
        write(folder, "errand.toml", &text)?;
        let config = Config::load(&folder.join("errand.toml"), &|_| None)?;

        let house = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
        house.initialize(&config).await?;
        let (stop, stopped) = oneshot::channel();
        let app = router(AppState::new(house.service.clone()), HttpSettings::default());
        let serving = tokio::spawn(serve(listener, app, async {
            // An error means that nobody is left who could want it served.
            let _: Result<(), oneshot::error::RecvError> = stopped.await;
        }));
        Ok(Self {
            url: config.issuer.to_string(),
            _background_tasks: house.spawn_background_tasks(),
            application: house,
            stop,
            serving,
        })
    }
}

/// Everything is on this machine: no proxy, and no root certificates, which a bare machine may not have.
fn client() -> Result<Client, BoxError> {
    Ok(Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]).build()?)
}

fn random_secret(dice: &OsEntropy) -> Result<String, BoxError> {
    Ok(general_purpose::URL_SAFE_NO_PAD.encode(dice.random_bytes32()?))
}

/// Writes a file that only its owner can read: Errand takes secrets from no other.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), BoxError> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name))?;
    Ok(file.write_all(text.as_bytes())?)
}
