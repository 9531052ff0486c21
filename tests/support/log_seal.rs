//! Tags for rows of the revocation log that a test wrote or changed, as a program with the keys of
//! the store computes them. They follow the documentation, not the code.

use errand::ports::StoreSealer;
use serde::Serialize;
use sqlx::{Connection, Executor, FromRow, PgConnection, SqliteConnection, query, query_as, query_scalar};

use super::{Backend, TestStore};

#[derive(Serialize, FromRow)]
struct Entry {
    seq: i64,
    verb: String,
    kind: String,
    key: String,
    reason: String,
    actor: String,
    occurred_at: i64,
    forget_after: i64,
    min_version: String,
    previous: String,
}

#[derive(Serialize)]
struct NewTag {
    seq: i64,
    previous: String,
    tag: String,
}

#[derive(Serialize, FromRow)]
struct Head {
    seq: i64,
    link: String,
    registry_version: i64,
    keys_version: i64,
}

const ENTRIES: &str =
    "SELECT seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous FROM revocation_log
    ORDER BY seq";
const HEAD: &str = "SELECT coalesce((SELECT max(seq) FROM revocation_log), 0) AS seq, '' AS link,
    (SELECT version FROM versions WHERE name = 'registry') AS registry_version,
    (SELECT version FROM versions WHERE name = 'keys') AS keys_version";

impl TestStore {
    /// Makes the log one that a program wrote: each row continues the row before it, and the head
    /// names the last one.
    pub async fn reseal_log(&self, sealer: &dyn StoreSealer) {
        let mut entries = self.read_entries().await;
        let mut link = String::new();
        let mut tags = Vec::new();
        for entry in &mut entries {
            link.clone_into(&mut entry.previous);
            link = tag(sealer, "revocation_log", entry);
            tags.push(NewTag { seq: entry.seq, previous: entry.previous.clone(), tag: link.clone() });
        }
        self.write_tags(&tags).await;
        let mut head: Head = match &self.backend {
            Backend::File { .. } => query_as(HEAD).fetch_one(&mut self.sqlite_connection().await).await.unwrap(),
            Backend::Server { .. } => query_as(HEAD).fetch_one(&mut self.postgres_connection().await).await.unwrap(),
        };
        head.link = link;
        let tag = tag(sealer, "log_head", &head);
        let Head { seq, link, registry_version, keys_version } = head;
        self.tamper(&format!(
            "UPDATE log_head SET seq = {seq}, link = '{link}', registry_version = {registry_version}, \
             keys_version = {keys_version}, tag = '{tag}'"
        ))
        .await;
    }

    async fn read_entries(&self) -> Vec<Entry> {
        match &self.backend {
            Backend::File { .. } => query_as(ENTRIES).fetch_all(&mut self.sqlite_connection().await).await.unwrap(),
            Backend::Server { .. } => query_as(ENTRIES).fetch_all(&mut self.postgres_connection().await).await.unwrap(),
        }
    }

    async fn write_tags(&self, tags: &[NewTag]) {
        let rows = serde_json::to_string(tags).unwrap();
        match &self.backend {
            Backend::File { .. } => {
                let sql = "UPDATE revocation_log SET previous = r.value->>'previous', tag = r.value->>'tag'
                    FROM json_each(?1) AS r WHERE seq = r.value->>'seq'";
                let mut connection = self.sqlite_connection().await;
                // A row may be of another version of the program.
                connection.execute("PRAGMA ignore_check_constraints = ON").await.unwrap();
                query(sql).bind(rows).execute(&mut connection).await.unwrap();
            }
            Backend::Server { .. } => {
                let sql = "UPDATE revocation_log AS l SET previous = r.previous, tag = r.tag
                    FROM json_to_recordset($1::json) AS r(seq bigint, previous text, tag text) WHERE l.seq = r.seq";
                query(sql).bind(rows).execute(&mut self.postgres_connection().await).await.unwrap();
            }
        }
    }

    /// Returns whether the store has a schema and has not been sealed.
    pub(super) async fn is_unsealed(&self) -> bool {
        let sql = "SELECT count(*) FROM log_head WHERE tag = ''";
        let count = match &self.backend {
            Backend::File { .. } => match SqliteConnection::connect(&self.url).await {
                Ok(mut connection) => query_scalar::<_, i64>(sql).fetch_one(&mut connection).await,
                Err(error) => Err(error),
            },
            Backend::Server { .. } => query_scalar(sql).fetch_one(&mut self.postgres_connection().await).await,
        };
        count.is_ok_and(|count| count == 1)
    }

    async fn sqlite_connection(&self) -> SqliteConnection {
        SqliteConnection::connect(&self.url).await.unwrap()
    }

    async fn postgres_connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }
}

fn tag<T: Serialize>(sealer: &dyn StoreSealer, table: &str, row: &T) -> String {
    sealer.tag_row(&format!("[\"{table}\",{}]", serde_json::to_string(row).unwrap())).unwrap()
}
