/* vault: see vault.h. */
#include "lib/vault.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The header at the start of a secret's pages. */
struct page_head {
    size_t size; /* of the mapping */
    char secret[];
};

static size_t n_secrets;
static bool lock_failed;

void *vault_alloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size = (sizeof(struct page_head) + size + page - 1) / page * page;
    struct page_head *head = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (head == MAP_FAILED)
        abort(); /* out of memory */
    lock_failed |= mlock(head, size) < 0;
    madvise(head, size, MADV_DONTDUMP);
    n_secrets++;
    head->size = size;
    return head->secret;
}

char *vault_strndup(const char *text, size_t len)
{
    char *copy = vault_alloc(len + 1);
    memcpy(copy, text, len);
    return copy;
}

void vault_free(void *secret)
{
    if (secret == NULL)
        return;
    struct page_head *head = CONTAINER_OF(secret, struct page_head, secret);
    size_t size = head->size;
    explicit_bzero(head, size);
    munmap(head, size);
    n_secrets--;
}

bool vault_is_locked(void)
{
    return !lock_failed;
}

bool vault_is_empty(void)
{
    return n_secrets == 0;
}
