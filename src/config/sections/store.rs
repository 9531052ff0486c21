//! `[store]`: the database.

use zeroize::Zeroizing;

use crate::config::{
    node::Section,
    sections::secrets,
    store_url::{StoreUrl, StoreUrlParseError},
};

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Location of the store.
    pub url: StoreUrl,
    /// Maximum connections of a replica for exchanges and lookups.
    pub max_connections: u32,
    /// Maximum connections of a replica for lists and searches.
    pub list_connections: u32,
    /// Maximum duration of a statement of a list or a search.
    pub list_timeout_seconds: u32,
    /// Maximum writes in one group commit.
    pub max_batch: u32,
}

const URL_VARIABLE: &str = "ERRAND_STORE_URL";

pub(in crate::config) fn read_store(root: &mut Section<'_>) -> Option<StoreConfig> {
    let mut section = root.section("store");
    let found = section.exclusive(&["url", "url_file"]);
    let max_connections =
        section.number("max_connections", 10, 1..=1000, "connections; 10 are enough for most deployments");
    let list_connections =
        section.number("list_connections", 4, 1..=1000, "connections; lists wait for one another on them");
    let list_timeout_seconds =
        section.number("list_timeout_seconds", 5, 1..=60, "seconds; a longer list is answered with 503");
    let max_batch = section.number("max_batch", 256, 1..=4096, "maximum writes in one group commit");
    let remedy = |error| match error {
        StoreUrlParseError::Malformed => {
            "for example, `postgres://errand@db.example.com/errand` or `sqlite:./errand.db`"
        }
        StoreUrlParseError::Unencoded => {
            "percent-encode `/`, `?`, `#` and `@` in the user name and the password: `%2F`, `%3F`, `%23`, `%40`"
        }
        StoreUrlParseError::InMemory => "name a file, such as `sqlite:./errand.db`",
    };
    let document = section.location.document;
    let url = if let Some(text) = secrets::read_variable(document, URL_VARIABLE) {
        StoreUrl::parse(&text)
            .map_err(|error| document.add_environment_error(URL_VARIABLE, error.to_string(), remedy(error).into()))
            .ok()
    } else if let Some((key, node)) = found {
        let text = if key == "url" {
            node.string().map(|text| Zeroizing::new(text.to_owned()))
        } else {
            secrets::read_secret(&node)
        };
        let url = StoreUrl::parse(&text?).map_err(|error| node.error(error, remedy(error))).ok();
        if key == "url" && url.as_ref().is_some_and(StoreUrl::has_password) {
            let remedy = format!(
                "put the URL into a file that `url_file` names, or into {URL_VARIABLE}, and treat this password as leaked"
            );
            node.error("secrets must not be in this file", remedy);
        }
        url.map(|url| url.resolve_relative_to(document.base_dir))
    } else {
        section.location.error("the store URL is missing", format_args!("set `url`, `url_file` or {URL_VARIABLE}"));
        None
    };
    Some(StoreConfig { url: url?, max_connections, list_connections, list_timeout_seconds, max_batch })
}
