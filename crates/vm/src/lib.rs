//! Tenants' virtual machines.
