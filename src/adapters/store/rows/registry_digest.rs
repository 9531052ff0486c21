//! The digest of the stored registry, which checkpoints of the audit trail contain.

use ring::digest::{self, Context};
use serde::Serialize;

use super::{BlockRow, KnownToolRow, ObjectRow, SecretRow};
use crate::{domain::encode_base64url, ports::Outage};

/// Returns the SHA-256 of all rows in base64url. Each row is a line of JSON with the name of its
/// table, and the lines are sorted.
pub(crate) fn digest_registry(
    objects: &[ObjectRow],
    secrets: &[SecretRow],
    tools: &[KnownToolRow],
    blocks: &[BlockRow],
) -> Result<String, Outage> {
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

fn add_lines<T: Serialize>(lines: &mut Vec<String>, table: &str, rows: &[T]) -> Result<(), Outage> {
    for row in rows {
        lines.push(serde_json::to_string(&(table, row)).map_err(Outage::during("compute the digest of the registry"))?);
    }
    Ok(())
}
