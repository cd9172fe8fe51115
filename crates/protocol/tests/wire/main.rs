//! The wire vectors: what deployed peers send, compute and refuse, byte for byte.

#[cfg(test)]
mod canonical_json;
#[cfg(test)]
mod feedback;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod gpu_signature;
#[cfg(test)]
mod merkle;
#[cfg(test)]
mod meshhub;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod replay_window;
#[cfg(test)]
mod session;
#[cfg(test)]
mod synapse_http;
#[cfg(test)]
mod tables;
