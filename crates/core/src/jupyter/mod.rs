//! A Jupyter server, as its clients see it: its token, the file in which it says where it listens, and its REST API.
//!
//! Facts: jupyter_server's REST API (`services/api/api.yaml` of its source), and the runtime files of `jupyter --runtime-dir`
//! (`jpserver-PID.json` since jupyter_server 1, `nbserver-PID.json` of the classic notebook).
//!
//! A server runs what it is told to, and the notebooks in it are strangers': whatever it answers is bounded in size and time,
//! parsed into types, and made visible where it is shown.

pub mod base_path;
pub mod client;
pub mod runtime_file;
pub mod token;
