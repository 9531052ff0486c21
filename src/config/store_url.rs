//! URL of the store. It may contain a password, which `Display` and `Debug` redact.

use std::{fmt, path::Path};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

/// URL of the store: `postgres:`, `postgresql:` or `sqlite:`. Displays without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Zeroizing<String>);

/// Why a text is not the URL of a store. Does not repeat the text, which may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlParseError {
    /// The text is not a URL with a supported scheme.
    #[error("must be a URL that begins with `postgres:`, `postgresql:` or `sqlite:`")]
    Malformed,
    /// The user name or the password contains a special character, so that the URL is parsed
    /// differently than intended and its parts may be shown.
    #[error("has an `@` after the host, or a `#`")]
    Unencoded,
    /// The store is in memory. Acknowledged writes must survive a crash.
    #[error("an in-memory store loses revocations")]
    InMemory,
}

impl StoreUrl {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, StoreUrlParseError> {
        let text = text.trim();
        if let Some(file) = sqlite_path(text) {
            let (file, query) = file.split_once('?').unwrap_or((file, ""));
            if file.is_empty() || file == ":memory:" || query.split('&').any(|part| part == "mode=memory") {
                return Err(StoreUrlParseError::InMemory);
            }
        } else {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
            let url = url.ok_or(StoreUrlParseError::Malformed)?;
            let after_host = url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'));
            if after_host || url.fragment().is_some() {
                return Err(StoreUrlParseError::Unencoded);
            }
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the URL with its password. Review every caller.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the URL names an SQLite file.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        sqlite_path(&self.0).is_some()
    }

    /// Returns whether the URL contains a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.as_postgres_url()
            .is_some_and(|url| url.password().is_some() || url.query_pairs().any(|(k, _)| k == "password"))
    }

    /// Returns whether the connection goes over a network without requiring TLS.
    #[must_use]
    pub fn has_optional_tls(&self) -> bool {
        self.as_postgres_url().is_some_and(|url| {
            let local = url.host_str().is_none_or(|host| {
                host.is_empty() || host.starts_with("%2F") || ["localhost", "127.0.0.1", "[::1]"].contains(&host)
            });
            let tls = |(key, value): (_, std::borrow::Cow<'_, str>)| {
                key == "sslmode" && ["require", "verify-ca", "verify-full"].contains(&value.as_ref())
            };
            !local && !url.query_pairs().any(tls)
        })
    }

    /// Resolves a relative SQLite path against `base`.
    #[must_use]
    pub(super) fn resolve_relative_to(self, base: &Path) -> Self {
        // The characters with a meaning in an SQLite URL; sqlx decodes them.
        const URL_ENCODE_SET: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');
        let Some(file) = sqlite_path(&self.0).filter(|file| !file.starts_with('/')) else { return self };
        let Some(base) = base.to_str().filter(|base| !base.is_empty()) else { return self };
        Self(Zeroizing::new(format!("sqlite://{}/{file}", utf8_percent_encode(base, URL_ENCODE_SET))))
    }

    fn as_postgres_url(&self) -> Option<Url> {
        if self.is_sqlite() { None } else { Url::parse(&self.0).ok() }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mut url) = self.as_postgres_url() else { return f.write_str(&self.0) };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("postgres://***");
        }
        let pairs = url.query_pairs().map(|(key, value)| {
            let value = if key == "password" { "***".into() } else { value.into_owned() };
            (key.into_owned(), value)
        });
        let pairs = pairs.collect::<Vec<_>>();
        if !pairs.is_empty() {
            url.query_pairs_mut().clear().extend_pairs(pairs);
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

fn sqlite_path(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("sqlite:")?;
    Some(rest.strip_prefix("//").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password with a special character would be shown as the host, the port or the path.
    #[test]
    fn unencoded_password_is_refused() {
        for url in [
            "postgres://errand:12/34@db/errand",
            "postgres://errand:12?34@db/errand",
            "postgres://errand:12#34@db/errand",
            "postgres://errand:12/34@db/errand?sslmode=require",
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap_err(), StoreUrlParseError::Unencoded, "{url}");
        }
        for url in
            ["postgres://errand:1%2F2%40@db/errand", "postgres://errand:a@b@db/errand", "postgres:///errand?host=/run"]
        {
            assert!(StoreUrl::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn password_is_redacted() {
        for (url, shown) in [
            ("postgres://errand@db/errand", "postgres://errand@db/errand"),
            ("postgres://errand:s3cret@db/errand", "postgres://errand:***@db/errand"),
            (
                "postgresql://errand:s3%40cret@db:5432/errand?sslmode=require",
                "postgresql://errand:***@db:5432/errand?sslmode=require",
            ),
            ("postgres:///errand?host=/run/pg&password=s3cret", "postgres:///errand?host=%2Frun%2Fpg&password=***"),
            ("sqlite:./errand.db", "sqlite:./errand.db"),
        ] {
            let url = StoreUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.has_password(), shown.contains("***"), "{shown}");
            assert!(!format!("{url:?}").contains("cret"));
        }
    }

    #[test]
    fn unsupported_store_urls_are_rejected() {
        for (url, error) in [
            ("mysql://db/errand", StoreUrlParseError::Malformed),
            ("errand.db", StoreUrlParseError::Malformed),
            ("postgres", StoreUrlParseError::Malformed),
            ("", StoreUrlParseError::Malformed),
            ("sqlite:", StoreUrlParseError::InMemory),
            ("sqlite::memory:", StoreUrlParseError::InMemory),
            ("sqlite://:memory:", StoreUrlParseError::InMemory),
            ("sqlite:x.db?mode=memory", StoreUrlParseError::InMemory),
        ] {
            assert_eq!(StoreUrl::parse(url), Err(error), "{url}");
        }
        let resolve =
            |url: &str| StoreUrl::parse(url).unwrap().resolve_relative_to(Path::new("/etc/er?and")).expose().to_owned();
        assert_eq!(resolve("sqlite:errand.db?mode=rwc"), "sqlite:///etc/er%3Fand/errand.db?mode=rwc");
        assert_eq!(resolve("sqlite:///var/lib/errand.db"), "sqlite:///var/lib/errand.db");
        assert_eq!(resolve("postgres://db/errand"), "postgres://db/errand");
    }

    #[test]
    fn optional_tls_is_detected() {
        for (url, is_optional) in [
            ("postgres://errand@db/errand", true),
            ("postgres://errand@db/errand?sslmode=prefer", true),
            ("postgres://errand@db/errand?sslmode=verify-full", false),
            ("postgres://errand@localhost/errand", false),
            ("postgres://%2Frun%2Fpg/errand", false),
            ("postgres:///errand?host=/run/pg", false),
            ("sqlite:errand.db", false),
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap().has_optional_tls(), is_optional, "{url}");
        }
    }
}
