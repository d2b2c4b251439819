//! An S3 server on this machine: another project's, which checks signatures and keeps objects in
//! files.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The bucket there is.
pub(crate) const BUCKET: &str = "backups";

/// The server; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Store {
    port: u16,
    task: JoinHandle<()>,
    root: TempDir,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Starts it on a free port, with an empty bucket.
    pub(crate) async fn start() -> Store {
        let root = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(root.path()).expect("a store");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single("test-key", "test-secret"));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("address").port();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    // A client that leaves in the middle is its own affair.
                    http.serve_connection(TokioIo::new(socket), service).await.ok();
                });
            }
        });
        Store { port, task, root }
    }

    /// The variables that lead there, with this secret.
    pub(crate) fn variables(&self, secret: &str) -> [(&'static str, String); 3] {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "test-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ]
    }

    /// The folder that a prefix's objects are in.
    pub(crate) fn folder(&self, prefix: &str) -> std::path::PathBuf {
        self.root.path().join(BUCKET).join(prefix)
    }
}
