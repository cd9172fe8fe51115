//! A gate before every method: while a test wants silence, requests are taken and not answered, as by a node that hangs. The
//! controls alone stay open.

use std::future::Future;

use jsonrpsee::{
    core::middleware::{Batch, Notification, RpcServiceT},
    types::Request,
};
use tokio::sync::watch;

use super::dev;

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Gate<S> {
    pub(super) service: S,
    pub(super) silent: watch::Receiver<bool>,
}

/// Waits until clients are answered again; the end of the chain ends the wait too.
async fn open(mut silent: watch::Receiver<bool>) {
    let _ = silent.wait_for(|silent| !silent).await;
}

impl<S: RpcServiceT + Clone + Send + Sync + 'static> RpcServiceT for Gate<S> {
    type MethodResponse = S::MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let Self { service, silent } = self.clone();
        async move {
            if !request.method_name().starts_with(dev::PREFIX) {
                open(silent).await;
            }
            service.call(request).await
        }
    }

    fn batch<'a>(&self, requests: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        let Self { service, silent } = self.clone();
        async move {
            open(silent).await;
            service.batch(requests).await
        }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.service.notification(notification)
    }
}
