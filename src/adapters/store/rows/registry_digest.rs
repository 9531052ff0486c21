//! The registry as stored, its digest, and its seal. The seal authenticates all rows as a whole, so
//! that no single row can be changed, added, removed or put back outside this program.

use ring::digest::{self, Context};
use serde::Serialize;

use super::{BlockRow, KnownToolRow, ObjectRow, SecretRow};
use crate::{
    adapters::store::store_sealer::SealerCell,
    domain::encode_base64url,
    ports::{Outage, StoredRegistry, TamperingError},
};

/// All rows of the registry.
pub(crate) struct RegistryRows {
    pub(crate) objects: Vec<ObjectRow>,
    pub(crate) secrets: Vec<SecretRow>,
    pub(crate) tools: Vec<KnownToolRow>,
    pub(crate) blocks: Vec<BlockRow>,
}

impl RegistryRows {
    /// Returns the SHA-256 of all rows in base64url. Each row is a line of JSON with the name of
    /// its table, and the lines are sorted.
    pub(crate) fn digest(&self) -> Result<String, Outage> {
        let Self { objects, secrets, tools, blocks } = self;
        let mut lines = Vec::with_capacity(objects.len() + secrets.len() + tools.len() + blocks.len());
        add_lines(&mut lines, "objects", objects)?;
        add_lines(&mut lines, "secrets", secrets)?;
        add_lines(&mut lines, "tools", tools)?;
        add_lines(&mut lines, "blocks", blocks)?;
        lines.sort_unstable();
        let mut context = Context::new(&digest::SHA256);
        for line in lines {
            context.update(line.as_bytes());
            context.update(b"\n");
        }
        Ok(encode_base64url(context.finish().as_ref()))
    }

    /// Reads the rows, and verifies their seal. A row that can't be parsed is reported by name.
    pub(crate) fn read(
        self,
        version: u64,
        seal: Option<String>,
        sealer: &SealerCell,
    ) -> Result<StoredRegistry, Outage> {
        let digest = self.digest()?;
        let Self { objects, secrets, tools, blocks } = self;
        let registry = StoredRegistry {
            version,
            entries: objects.iter().map(ObjectRow::read).collect::<Result<_, _>>()?,
            registration_positions: objects.iter().map(ObjectRow::registration_position).collect::<Result<_, _>>()?,
            secret_tags: SecretRow::read_all(secrets)?,
            known_tools: KnownToolRow::read_all(tools)?,
            blocks: blocks.into_iter().map(BlockRow::read).collect::<Result<_, _>>()?,
        };
        let is_authentic = match seal {
            Some(seal) => sealer.get()?.is_registry_authentic(version, &digest, &seal)?,
            // The seal of an empty registry is written with the first keys.
            None => false,
        };
        if is_authentic { Ok(registry) } else { Err(Outage::during("verify the registry")(TamperingError::Registry)) }
    }
}

fn add_lines<T: Serialize>(lines: &mut Vec<String>, table: &str, rows: &[T]) -> Result<(), Outage> {
    for row in rows {
        lines.push(serde_json::to_string(&(table, row)).map_err(Outage::during("compute the digest of the registry"))?);
    }
    Ok(())
}
