//! The local control API: what is asked of a running daemon, and how.
//!
//! HTTP/1.1 with JSON bodies over a Unix socket that only the daemon's own user and root may use.
//! All paths begin with `/v1`. A request that fails is answered with a 4xx or 5xx status and a
//! [`types::ApiError`].
//!
//! | request | asks | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`types::Status`] |
//! | `GET /v1/inbox` | | list of [`types::InboxItem`] |
//! | `GET /v1/offers` | | list of [`types::Offer`] |
//! | `GET /v1/folders/sync` | `?folder=` | [`types::SyncState`] |
//! | `GET /v1/conflicts` | `?folder=` | list of [`types::Conflict`] |
//! | `GET /v1/log` | `?after=&limit=&wait_ms=` | list of [`types::LogLine`] |
//! | `POST /v1/folders/scan` | [`types::ScanFolder`] | `null`, when the scan is done |
//! | `POST /v1/conflicts/keep` | [`types::KeepConflict`] | `null` |
//! | `POST /v1/conflicts/merge` | [`types::MergeConflict`] | [`types::MergedConflict`] |
//! | `POST /v1/history` | [`types::AskHistory`] | list of [`types::HistoryEntry`], newest first |
//! | `POST /v1/restore` | [`types::Restore`] | [`types::Restored`] |
//! | `POST /v1/reload` | | `null`, when the configuration is in force |
//! | `POST /v1/shutdown` | | `null`, before the daemon ends |
//!
//! `history` is a `POST` because a path is bytes, and a query only text.

pub mod client;
pub mod log;
pub mod types;
