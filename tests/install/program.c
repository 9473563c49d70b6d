// A program outside of the tree: it knows the library by what `make install` put down, and nothing else.

#include <mmc.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    mmc_store *store = NULL;
    mmc_key key = {"block", 5};
    char block[4096] = "bytes", back[4096];
    if (mmc_init(NULL, &store) != MMC_OK || mmc_put(store, key, block, sizeof block, NULL) != MMC_OK ||
        mmc_get(store, key, back, sizeof back, 0, NULL, NULL) != MMC_OK || mmc_uninit(store) != MMC_OK) {
        fprintf(stderr, "%s\n", mmc_last_error());
        return 1;
    }
    if (memcmp(block, back, sizeof block) != 0) return 1;
    printf("mmc %s\n", mmc_version());
    return 0;
}
