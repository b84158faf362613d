from trace_jax.models.buckets import bucket


def test_buckets_have_two_significant_bits():
    sizes = sorted({bucket(length) for length in range(1, 600)})
    assert sizes == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768]
    assert all(bucket(size) == size and bucket(size + 1) > size for size in sizes)


def test_buckets_start_at_the_shortest_and_hold_the_length():
    sizes = {bucket(n, 32) for n in range(1, 1025)}
    assert sorted(sizes) == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    assert all(n <= bucket(n, 32) < max(33, 1.5 * n + 1) for n in range(1, 1025))
