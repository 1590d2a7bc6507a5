#include "spin.h"

#include <stdbool.h>
#include <stddef.h>

#include "clock.h"

/* QEMU charges the instructions of a translation block when it enters it, so that simulated CPU time costs
 * the host what entering blocks costs. The sled is one block: 512 instructions, the most that one may have,
 * on one page. Measured with QEMU 7.2: 10,000-34,000 MIPS on the sled, 340 MIPS in a loop of two
 * instructions. */
#if defined(__aarch64__)
__asm__(".text\n"
        ".balign 4096\n"
        ".type spin_sled, %function\n"
        "spin_sled:\n"
        ".rept 510\n"
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
        ".rept 510\n"
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
#define SLED_INSTRUCTIONS 512

/* How long to burn at most before the next look at the clock. The first part, which is also at most a quarter of
 * the job, shows whether the processor still is as fast as it was when measured. */
#define FIRST_CHUNK_NS NS_PER_MS
#define CHUNK_NS (8 * NS_PER_MS)

/* Burns about `ns`, and returns how much exactly: whole passes of the sled, and the remainder by steps
 * where nothing but it will be left. */
static int64_t burn(const struct spin *spin, int64_t sled_ps, int64_t ns)
{
    int64_t ps = ns * PS_PER_NS;
    int64_t sleds = ps / sled_ps;
    int64_t steps = sleds < 4 ? ps % sled_ps / spin->step_ps : 0;

    if (sleds > 0)
        spin_sled((uint64_t)sleds);
    if (steps > 0)
        spin_step((uint64_t)steps);
    return (sleds * sled_ps + steps * spin->step_ps) / PS_PER_NS;
}

/* Too little to look at the clock again. */
static bool is_short(const struct spin *spin, int64_t left_ns)
{
    return left_ns < 4 * spin->look_ns;
}

/* As long as nothing disturbs it, a job ends at a known instant, and the clock that is cheap to read tells
 * how far off that is. After a part that took another time than it should the CPU clock is asked, for what
 * is charged to the thread is the kernel's to say. (A shorter time, too: a processor that is faster than it
 * was when measured leaves room for somebody else to run unnoticed.) A quarter of the rest is always kept
 * back, for what interrupts cost, and for a processor that has become slower. */
int64_t spin_for(const struct spin *spin, const struct meter *start, int64_t ns)
{
    int64_t until_ns = start->wall_ns + ns - spin->own_ns;
    int64_t sled_ps = spin->sled_ps;

    if (ns <= 2 * spin->look_ns) { /* the look alone would take a good part of it */
        burn(spin, sled_ps, ns > spin->bare_ns ? ns - spin->bare_ns : 0);
        return start->wall_ns + (ns > spin->bare_ns ? ns : spin->bare_ns);
    }
    int64_t now_ns = monotonic_ns();
    int64_t chunk_ns = ns / 4 < FIRST_CHUNK_NS ? ns / 4 : FIRST_CHUNK_NS;
    while (!is_short(spin, until_ns - now_ns)) {
        int64_t left_ns = until_ns - now_ns;
        int64_t part_ns = left_ns - left_ns / 4;
        part_ns = burn(spin, sled_ps, part_ns < chunk_ns ? part_ns : chunk_ns);
        chunk_ns = CHUNK_NS;
        int64_t then_ns = now_ns;
        now_ns = monotonic_ns();
        int64_t late_ns = now_ns - then_ns - part_ns;
        if (late_ns >= -SPIN_DISTURBED_NS && late_ns <= spin->look_ns + SPIN_DISTURBED_NS)
            continue;
        int64_t cpu_ns = thread_cpu_ns() - start->cpu_ns;
        now_ns = monotonic_ns();
        until_ns = now_ns + ns - cpu_ns - spin->own_ns;
        int64_t used_ns = left_ns - (until_ns - now_ns);
        if (used_ns > part_ns + part_ns / 8) /* also where it is slower than it was when measured */
            sled_ps = used_ns * sled_ps / part_ns;
    }
    if (until_ns <= now_ns)
        return 0;
    burn(spin, sled_ps, until_ns - now_ns);
    return until_ns + spin->own_ns;
}

void spin_blindly(const struct spin *spin, int64_t ns) { burn(spin, spin->sled_ps, ns); }

/* The least of several tries: what disturbs a measurement only makes it longer. */
static int64_t least_ns(void (*run)(uint64_t), uint64_t count)
{
    int64_t least = INT64_MAX;

    for (int try = 0; try < 8; try++) {
        int64_t start_ns = monotonic_ns();
        if (run)
            run(count);
        int64_t took_ns = monotonic_ns() - start_ns;
        least = took_ns < least ? took_ns : least;
    }
    return least;
}

/* What one of `run`'s turns takes: the difference that many more of them make. */
static int64_t turn_ps(void (*run)(uint64_t), int64_t n)
{
    int64_t ps = (least_ns(run, (uint64_t)(2 * n)) - least_ns(run, (uint64_t)n)) * PS_PER_NS / n;

    return ps < 1 ? 1 : ps;
}

/* Under QEMU's instruction counter an instruction takes 2^n ns. A measurement that comes within a
 * thousandth of that is that, and was only rounded by the clock. */
static int64_t sled_rounded_ps(int64_t measured_ps)
{
    int64_t exact_ps = SLED_INSTRUCTIONS * PS_PER_NS;

    while (exact_ps < measured_ps - measured_ps / 1000)
        exact_ps *= 2;
    return exact_ps <= measured_ps + measured_ps / 1000 ? exact_ps : measured_ps;
}

/* How much longer than `ns` it takes. */
static int64_t excess_ns(const struct spin *spin, int64_t ns)
{
    int64_t least = INT64_MAX;

    for (int try = 0; try < 8; try++) {
        struct meter start = {0, monotonic_ns()};
        spin_for(spin, &start, ns);
        int64_t took_ns = monotonic_ns() - start.wall_ns;
        least = took_ns < least ? took_ns : least;
    }
    return least > ns ? least - ns : 0;
}

struct spin spin_calibrate(void)
{
    enum { SLEDS = 128, STEPS = 4096 };
    struct spin spin = {.own_ns = 0, .bare_ns = 0};

    spin.sled_ps = sled_rounded_ps(turn_ps(spin_sled, SLEDS));
    spin.step_ps = turn_ps(spin_step, STEPS);
    if (spin.sled_ps % (SLED_INSTRUCTIONS * PS_PER_NS) == 0)
        spin.step_ps = 2 * spin.sled_ps / SLED_INSTRUCTIONS;
    spin.look_ns = least_ns(NULL, 0) * 2;
    spin.bare_ns = excess_ns(&spin, 0);
    spin.own_ns = excess_ns(&spin, 4 * spin.look_ns);
    return spin;
}
