#include "spin.h"

#include "clock.h"

/* QEMU charges the instructions of a translation block when it enters it, so that simulated CPU time costs
 * the host what entering blocks costs. The sled is one block: at most 512 instructions, on one page. Measured
 * with QEMU 7.2: 10,000-34,000 MIPS on the sled, 340 MIPS in a loop of two instructions. */
#if defined(__aarch64__)
__asm__(".text\n"
        ".balign 4096\n"
        ".type spin_sled, %function\n"
        "spin_sled:\n"
        ".rept 509\n"
        "nop\n"
        ".endr\n"
        "subs x0, x0, #1\n"
        "b.ne spin_sled\n"
        "ret\n"
        ".size spin_sled, . - spin_sled\n"
        ".type spin_step, %function\n"
        "spin_step:\n"
        "subs x0, x0, #1\n"
        "b.ne spin_step\n"
        "ret\n"
        ".size spin_step, . - spin_step\n");
#elif defined(__x86_64__)
__asm__(".text\n"
        ".balign 4096\n"
        ".type spin_sled, @function\n"
        "spin_sled:\n"
        ".rept 509\n"
        "nop\n"
        ".endr\n"
        "dec %rdi\n"
        "jnz spin_sled\n"
        "ret\n"
        ".size spin_sled, . - spin_sled\n"
        ".type spin_step, @function\n"
        "spin_step:\n"
        "dec %rdi\n"
        "jnz spin_step\n"
        "ret\n"
        ".size spin_step, . - spin_step\n");
#else
#error "write spin_sled and spin_step for this architecture"
#endif

void spin_sled(uint64_t passes); /* passes > 0 */
void spin_step(uint64_t turns);  /* turns > 0 */

#define PS_PER_NS 1000

/* The first chunk shows whether the calibration still holds; later ones are long enough to make reading the
 * clock cheap. */
#define FIRST_CHUNK_NS NS_PER_MS
#define CHUNK_NS (8 * NS_PER_MS)

static void burn(const struct spin *spin, int64_t sled_ps, int64_t ns)
{
    int64_t ps = ns * PS_PER_NS;
    int64_t turns = ps % sled_ps / spin->step_ps;

    if (ps >= sled_ps)
        spin_sled((uint64_t)(ps / sled_ps));
    if (turns > 0)
        spin_step((uint64_t)turns);
}

void spin_until(const struct spin *spin, int64_t until_ns)
{
    int64_t sled_ps = spin->sled_ps;
    int64_t chunk_ns = FIRST_CHUNK_NS;
    int64_t now_ns = thread_cpu_ns();

    for (;;) {
        int64_t left_ns = until_ns - now_ns;
        int64_t part_ns = left_ns - left_ns / 4 < chunk_ns ? left_ns - left_ns / 4 : chunk_ns;
        if (left_ns / 4 <= 2 * spin->read_ns) {
            /* Too little is left for another look at the clock to be worth its cost: the rest by calibration.
             */
            if (left_ns > spin->read_ns)
                burn(spin, sled_ps, left_ns - spin->read_ns);
            return;
        }
        burn(spin, sled_ps, part_ns);
        int64_t then_ns = now_ns;
        now_ns = thread_cpu_ns();
        /* A slower processor than the one calibrated would overshoot: go by what this chunk took. */
        int64_t took_ps = (now_ns - then_ns - spin->read_ns) * spin->sled_ps / part_ns;
        sled_ps = took_ps > spin->sled_ps ? took_ps : spin->sled_ps;
        chunk_ns = CHUNK_NS;
    }
}

/* The shortest of several tries: what disturbs a measurement only makes it longer. */
static int64_t fastest_ns(void (*run)(uint64_t), uint64_t count)
{
    int64_t best_ns = INT64_MAX;

    for (int try = 0; try < 8; try++) {
        int64_t start_ns = thread_cpu_ns();
        if (run)
            run(count);
        int64_t took_ns = thread_cpu_ns() - start_ns;
        if (took_ns < best_ns)
            best_ns = took_ns;
    }
    return best_ns;
}

struct spin spin_calibrate(void)
{
    enum { SLEDS = 256, STEPS = 4096 };
    struct spin spin = {.read_ns = fastest_ns(NULL, 0)};

    spin.sled_ps = (fastest_ns(spin_sled, SLEDS) - spin.read_ns) * PS_PER_NS / SLEDS;
    spin.step_ps = (fastest_ns(spin_step, STEPS) - spin.read_ns) * PS_PER_NS / STEPS;
    if (spin.step_ps < 1)
        spin.step_ps = 1;
    if (spin.sled_ps < spin.step_ps)
        spin.sled_ps = spin.step_ps;
    return spin;
}
