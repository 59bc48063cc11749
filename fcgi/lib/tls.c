/* tls: see tls.h. */
#include "lib/tls.h"

#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

SSL_CTX *tls_new(void)
{
    SSL_CTX *settings = SSL_CTX_new(TLS_client_method());
    if (settings == NULL)
        abort();
    SSL_CTX_set_verify(settings, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_min_proto_version(settings, TLS1_2_VERSION);
    SSL_CTX_set_mode(settings, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); /* hiredis moves it as it grows */
    return settings;
}

void tls_free(SSL_CTX *settings)
{
    SSL_CTX_free(settings);
}

/* Otherwise OpenSSL would ask for the passphrase on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *user)
{
    (void)out, (void)size, (void)writing, (void)user;
    return -1;
}

typedef int use_certificate(SSL_CTX *settings, X509 *certificate);

/* The number of certificates in the file, all of which were used; or -1. */
static int use_certificates(SSL_CTX *settings, const struct file *file, use_certificate *first,
                            use_certificate *next)
{
    BIO *bio = BIO_new_mem_buf(file->data, (int)file->len);
    X509 *certificate;
    int n = 0;
    while (n >= 0 && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        n = (n == 0 ? first : next)(settings, certificate) == 1 ? n + 1 : -1;
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error(); /* "no start line" ends the file */
    return n > 0 ? n : -1;
}

static int trust(SSL_CTX *settings, X509 *certificate)
{
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(settings), certificate);
}

static int add_to_chain(SSL_CTX *settings, X509 *certificate)
{
    return (int)SSL_CTX_add1_chain_cert(settings, certificate);
}

int tls_trust(SSL_CTX *settings, const struct file *ca)
{
    return use_certificates(settings, ca, trust, trust) > 0 ? 0 : -1;
}

int tls_present(SSL_CTX *settings, const struct file *chain)
{
    return use_certificates(settings, chain, SSL_CTX_use_certificate, add_to_chain) > 0 ? 0 : -1;
}

int tls_use_key(SSL_CTX *settings, const struct file *file)
{
    BIO *bio = BIO_new_mem_buf(file->data, (int)file->len);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool used = key != NULL && SSL_CTX_use_PrivateKey(settings, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return used ? 0 : -1;
}

SSL *tls_connect(SSL_CTX *settings, const char *server_name)
{
    SSL *connection = SSL_new(settings);
    if (connection == NULL)
        abort();
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(connection), server_name) != 1 &&
        (SSL_set1_host(connection, server_name) != 1 ||
         SSL_set_tlsext_host_name(connection, server_name) != 1))
        abort(); /* out of memory: the configuration has checked the name */
    ERR_clear_error();
    return connection;
}

void tls_close(SSL *connection)
{
    SSL_free(connection);
}

void tls_forget_errors(void)
{
    ERR_clear_error();
}

const char *tls_failure(const SSL *connection)
{
    long verified = SSL_get_verify_result(connection);
    if (verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    return ERR_reason_error_string(ERR_peek_error());
}
