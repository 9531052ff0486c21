//! Read-only queries of admins: tasks, tokens, revocations, audit records.

use crate::{
    app::{ConflictError, Error, Service},
    domain::{
        id::{TaskId, TokenId},
        revocation::LogEntry,
        task::Task,
    },
    ports::{AuditFilter, AuditRow, Page, PageRequest, TaskFilter, TokenFilter, TokenRecord},
};

/// One page of audit records.
pub type AuditPage = Page<AuditRow>;

impl Service {
    /// Returns one task.
    pub async fn read_task(&self, id: TaskId) -> Result<Task, Error> {
        Ok(self.store().find_task(id).await?.ok_or(ConflictError::NotFound("task"))?)
    }

    /// Lists tasks, newest first.
    pub async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, Error> {
        Ok(self.store().list_tasks(filter, page).await?)
    }

    /// Returns the record of one token.
    pub async fn read_token(&self, id: TokenId) -> Result<TokenRecord, Error> {
        Ok(self.store().find_token(id).await?.ok_or(ConflictError::NotFound("token"))?)
    }

    /// Lists the records of tokens, newest first.
    pub async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, Error> {
        Ok(self.store().list_tokens(filter, page).await?)
    }

    /// Lists revocations, newest first.
    pub async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, Error> {
        Ok(self.store().list_revocations(page).await?)
    }

    /// Lists audit records, newest first.
    pub async fn list_audit(&self, filter: &AuditFilter, page: &PageRequest) -> Result<AuditPage, Error> {
        Ok(self.store().list_audit_records(filter, page).await?)
    }
}
