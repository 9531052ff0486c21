//! The parties: identity provider, Errand, MCP server, two agents and an admin. They listen on free
//! loopback ports. Their files are in a temporary directory that is removed at the end.

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

/// A file that both agents may read and that must not change.
pub(crate) const FIGURES: &str = "figures.txt";
pub(crate) const FIGURES_TEXT: &str = "Q1 120, Q2 135, Q3 128, Q4 150";
/// A file that only the planner may read.
pub(crate) const FORECAST: &str = "forecast.txt";
const FORECAST_TEXT: &str = "Q1 155, Q2 161";
/// A file that neither agent may read.
pub(crate) const SALARIES: &str = "salaries.txt";
const SALARIES_TEXT: &str = "not for agents";

pub(crate) struct Fixtures {
    pub(crate) http: Client,
    /// URL of the identity provider.
    pub(crate) provider: String,
    pub(crate) errand: ErrandServer,
    /// URL of the MCP server.
    pub(crate) mcp: String,
    pub(crate) planner: OAuthClient,
    pub(crate) reader: OAuthClient,
    pub(crate) ops: OAuthClient,
    folder: TempDir,
}

/// A running Errand server.
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

        let entropy = Arc::new(OsEntropy::new()?);
        let planner_key = Key::generate("planner-1")?;
        let secret = |client| Ok::<_, BoxError>((client, Secret::new(random_secret(&entropy)?)));
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
        let oauth_client =
            |id, credential| OAuthClient { id, credential, http: http.clone(), entropy: Arc::clone(&entropy) };
        Ok(Self {
            planner: oauth_client("planner", Credential::Key(planner_key.private()?)),
            reader: oauth_client("reader", Credential::Secret(reader)),
            ops: oauth_client("ops", Credential::Secret(ops)),
            http,
            provider,
            errand,
            mcp,
            folder,
        })
    }

    /// Returns the content of the figures file; empty if it is missing.
    pub(crate) fn figures(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("files").join(FIGURES)).unwrap_or_default()
    }

    /// Stops all servers and removes the files.
    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        // An error means that the server has already stopped.
        let _: Result<(), ()> = self.errand.stop.send(());
        self.errand.serving.await?;
        self.errand.application.service.shutdown().await;
        Ok(self.folder.close()?)
    }
}

impl ErrandServer {
    /// Starts Errand as `errand serve` does, from a configuration file, on SQLite and a free port.
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

        let application = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
        application.initialize(&config).await?;
        let (stop, stopped) = oneshot::channel();
        let app = router(AppState::new(application.service.clone()), HttpSettings::default());
        let serving = tokio::spawn(serve(listener, app, async {
            // An error means that the sender was dropped, which also stops the server.
            let _: Result<(), oneshot::error::RecvError> = stopped.await;
        }));
        Ok(Self {
            url: config.issuer.to_string(),
            _background_tasks: application.spawn_background_tasks(),
            application,
            stop,
            serving,
        })
    }
}

/// Creates a client for loopback servers: without proxy and without root certificates, which a
/// minimal system may lack.
fn client() -> Result<Client, BoxError> {
    Ok(Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]).build()?)
}

fn random_secret(entropy: &OsEntropy) -> Result<String, BoxError> {
    Ok(general_purpose::URL_SAFE_NO_PAD.encode(entropy.random_bytes32()?))
}

/// Writes a file that only its owner can read, because Errand rejects other files with secrets.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), BoxError> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name))?;
    Ok(file.write_all(text.as_bytes())?)
}
