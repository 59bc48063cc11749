/* tls: TLS for connections that this program makes itself. The certificate and the name of the server are always
 * verified. Certificates and keys are passed in memory, because workers cannot open files. */
#ifndef TLS_H
#define TLS_H

#include "lib/files.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX: the settings */
struct ssl_st;     /* OpenSSL's SSL: one connection */

/* Settings that trust no certificate yet. Never NULL. */
struct ssl_ctx_st *tls_new(void);
void tls_free(struct ssl_ctx_st *settings); /* NULL is allowed */

/* Each takes one PEM file and returns -1 if it cannot be used. */
MUST_CHECK int tls_trust(struct ssl_ctx_st *settings, const struct file *ca); /* one or more certificates */
MUST_CHECK int tls_present(struct ssl_ctx_st *settings, const struct file *chain); /* our certificate first */
MUST_CHECK int tls_use_key(struct ssl_ctx_st *settings, const struct file *key);   /* of our certificate */

/* A TLS client session that accepts only a certificate for this name or IP address. Never NULL. */
struct ssl_st *tls_connect(struct ssl_ctx_st *settings, const char *server_name);
void tls_close(struct ssl_st *connection);

/* Clears OpenSSL's error queue. Call this before the library that uses a connection, so that it reports no older errors. */
void tls_forget_errors(void);

/* Why TLS failed on the connection, or NULL; valid until the next call. */
const char *tls_failure(const struct ssl_st *connection);

#endif
